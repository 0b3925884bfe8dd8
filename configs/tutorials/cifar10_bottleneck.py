"""Two stages of bottleneck blocks on CIFAR-10: a tutorial's recipe, kept as it was.

    python launch.py --config=configs/tutorials/cifar10_bottleneck.py --config.data.dir=DIR

DIR holds CIFAR-10 as published, in its binary or its Python form. Three and four bottleneck blocks
behind the ImageNet stem, SGD at 0.01 without momentum, batch 32, two epochs.

Expected: the tutorial reports none. Not run here: the data could not be had. Cost: 2 × 50,000
images.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 32
    config.num_epochs = 2
    config.model.name = "resnet50"
    config.model.stage_sizes = (3, 4)
    config.data.name = "cifar"
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.0
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "constant"
    config.schedule.base_lr = 0.01
    config.schedule.base_batch_size = None
    return config
