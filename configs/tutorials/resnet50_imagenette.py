"""ResNet-50 v1 (stride in the first 1×1) on Imagenette: a tutorial's recipe, kept as it was.

    python launch.py --config=configs/tutorials/resnet50_imagenette.py

Ten classes of ImageNet, from the copy whose short side is 320 pixels; 224 pixels, batch 32, SGD
with momentum at a constant 0.002, 30 epochs, no augmentation.

Expected: the tutorial reports 0.75 top-1 on 500 images. Not run here: the data could not be had.
Cost: 30 × 9,469 images.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 32
    config.num_epochs = 30
    config.model.name = "resnet50_v1"
    config.data.name = "imagenette/320px-v2"
    config.data.image_size = 224
    config.data.random_resized_crop = False
    config.data.flip = False
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "constant"
    config.schedule.base_lr = 0.002
    config.schedule.base_batch_size = None
    return config
