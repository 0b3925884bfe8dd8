"""A small CIFAR-10 network without normalisation: a tutorial's recipe, kept as it was.

    python launch.py --config=configs/tutorials/cifar10_without_norm.py --config.data.dir=DIR

DIR holds CIFAR-10 as published, in its binary or its Python form. Stages of 2, 3 and 2 basic blocks
from 32 filters, shortcut A by 2×2 average pooling, pixels scaled to [-1, 1], Adam at 0.001, batch
20, 10,000 steps (four epochs).

Expected: the tutorial reports none. Not run here: the data could not be had. Cost: 4 × 50,000
images.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 20
    config.num_epochs = 4
    config.model.name = "cifar_resnet20"
    config.model.stage_sizes = (2, 3, 2)
    config.model.width = 32
    config.model.shortcut = "A_pool"
    config.model.norm = "none"
    config.model.conv_bias = True
    config.data.name = "cifar"
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.5, 0.5, 0.5)
    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "constant"
    config.schedule.base_lr = 1e-3
    return config
