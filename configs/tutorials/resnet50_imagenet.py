"""ResNet-50 v1.5 on ImageNet-1k at batch 32: a tutorial's recipe, kept as it was.

    python launch.py --config=configs/tutorials/resnet50_imagenet.py --config.data.dir=DIR

DIR is a TFDS directory that holds imagenet2012. The rate is 0.1 for the batch of 32, without
scaling, times 0.1 after epochs 30, 60 and 80 of 90. For a recipe that is meant to be good see
resnet50_imagenet.py.

Expected: the tutorial reports none. Not run here: the data could not be had. Cost: 90 × 1.28
million images.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 32
    config.num_epochs = 90
    config.model.name = "resnet50"
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.random_resized_crop = True
    config.data.flip = True
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = None
    config.schedule.boundaries = (30.0, 60.0, 80.0)
    config.schedule.factor = 0.1
    return config
