"""Pre-activation ResNet-164 on CIFAR-10 or CIFAR-100 as He et al. 2016 trained it.

    python launch.py --config=configs/cifar/resnet164_v2.py --config.data.dir=DIR

DIR holds CIFAR-10 or CIFAR-100 as published, in its binary or its Python form: the number of
classes is the data's. Bottleneck blocks with normalisation and ReLU before each convolution;
otherwise as resnet110.py: the paper keeps a rate of 0.01 for 400 steps, here it rises from there.

Expected: 94.54 test top-1 on CIFAR-10, 75.67 on CIFAR-100 (the paper's table 4, medians of five
runs, as errors of 5.46 and 24.33 %). Not run here: the data could not be had. Cost: 64,000 steps of
128 images of 32 pixels; 8.2 million × 248 million multiply-adds forward.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 64_000 / 390
    config.model.name = "cifar_resnet164_v2"
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
