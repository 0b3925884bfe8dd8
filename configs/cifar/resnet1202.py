"""ResNet-1202 on CIFAR-10 as He et al. 2015 trained it: the one that was too large for the data.

    python launch.py --config=configs/cifar/resnet1202.py --config.data.dir=DIR

Other than resnet110.py: the network. Its equal blocks are compiled once (model.scan_blocks), and
the backward pass computes the inside of a block again instead of keeping it, which changes no
result. DIR as in resnet20.py.

Expected: 92.07 test top-1, below ResNet-110 (the paper's table 6, as an error of 7.93 %; others'
runs reach 93.82, akamaster/pytorch_resnet_cifar10). Not run here: the data could not be had. Cost:
64,000 steps of 128 images of 32 pixels; 8.2 million × 2.8 billion multiply-adds forward.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 64_000 / 390
    config.model.name = "cifar_resnet1202"
    config.model.zero_init = False
    config.model.remat = "block"
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
