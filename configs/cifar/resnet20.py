"""ResNet-20 on CIFAR-10 as He et al. 2015 trained it; ResNet-32, 44 and 56 by one field.

    python launch.py --config=configs/cifar/resnet20.py --config.data.dir=DIR

DIR holds CIFAR-10 as published, in its binary or its Python form. Section 4.2 of the paper: 64,000
steps of 128 images, the rate divided by ten after 32,000 and 48,000, crops from images padded by
four pixels, flips, shortcuts without parameters. --config.model.name takes cifar_resnet32,
cifar_resnet44 and cifar_resnet56 as well, and cifar_plain20 to cifar_plain56, the nets without
shortcuts.

Expected: 91.25 test top-1; of 32, 44 and 56 layers 92.49, 92.83 and 93.03 (the paper's table 6, as
errors of 8.75, 7.51, 7.17 and 6.97 %). Not run here: the data could not be had. Cost: 64,000 steps
of 128 images of 32 pixels; 8.2 million × 41 million multiply-adds forward, of 56 layers × 125.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 64_000 / 390
    config.model.name = "cifar_resnet20"
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
    return config
