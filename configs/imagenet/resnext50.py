"""ResNeXt-50 32×4d on ImageNet-1k: Xie et al. 2017.

    python launch.py --config=configs/imagenet/resnext50.py --config.data.dir=DIR

Other than resnet50.py: the network, and 100 epochs, as torchvision's. DIR as in
configs/resnet50_imagenet.py.

Expected: 77.6 top-1 at 224, one central crop, no flips (torchvision's first weights; the authors:
77.8). Not run here. Cost: 100 × 1.28 million images of 224 pixels; modelled: 2 h on 8 A100, 1.2 h
on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 256
    config.num_epochs = 100
    config.model.name = "resnext50_32x4d"
    config.model.zero_init = False
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.eval_size = 224
    config.data.eval_crop = 0.875
    config.data.random_resized_crop = True
    config.data.flip = True
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_norm_and_bias = True
    config.schedule.name = "step"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = 256
    config.schedule.boundaries = (30.0, 60.0)
    config.schedule.factor = 0.1
    return config
