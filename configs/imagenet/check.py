"""A narrow ResNet-18 on a fiftieth of an ImageNet epoch: minutes, to see that the files are right.

    python launch.py --config=configs/imagenet/check.py --config.data.dir=DIR

Before hours on GPUs are spent: it reads every kind of file that they will read, decodes, trains and
scores all validation images, at 64 pixels. DIR as in configs/resnet50_imagenet.py.

Expected: a loss that falls below 6.9, which is what guessing one of 1,000 classes costs, and a
top-1 above 0.001; no figure is published for it. Not run here. Cost: 0.02 × 1.28 million images of
64 pixels, and 50,000 scored; a few minutes on a laptop.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 0.02
    config.model.name = "resnet18"
    config.model.width = 16
    config.data.name = "imagenet2012"
    config.data.image_size = 64
    config.data.eval_size = 64
    config.data.eval_crop = 0.875
    config.data.random_resized_crop = True
    config.data.flip = True
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = 256
    config.schedule.warmup_epochs = 0.002
    return config
