"""ResNet-110 on CIFAR-10 as He et al. 2015 trained it, with its warm-up.

    python launch.py --config=configs/cifar/resnet110.py --config.data.dir=DIR

Other than resnet20.py: the network and the first epoch. The paper trains at 0.01 until the training
error is below 80 %, which took about 400 steps; here the rate rises linearly from 0.01 to 0.1 over
the first 390. DIR as there.

Expected: 93.39 ± 0.16 test top-1, the best of five runs 93.57 (the paper's table 6, as errors of
6.61 ± 0.16 and 6.43 %). Not run here: the data could not be had. Cost: 64,000 steps of 128 images
of 32 pixels; 8.2 million × 253 million multiply-adds forward.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 64_000 / 390
    config.model.name = "cifar_resnet110"
    config.model.zero_init = False
    config.data.name = "cifar"
    config.data.flip = True
    config.data.pad_and_crop = 4
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_norm_and_bias = True
    config.schedule.name = "step"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = None
    config.schedule.boundaries = (32_000 / 390, 48_000 / 390)
    config.schedule.factor = 0.1
    config.schedule.warmup_epochs = 1
    config.schedule.warmup_factor = 0.1
    return config
