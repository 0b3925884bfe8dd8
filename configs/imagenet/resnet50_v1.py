"""ResNet-50 v1 on ImageNet-1k: He et al. 2015, with the stride where the paper has it.

    python launch.py --config=configs/imagenet/resnet50_v1.py --config.data.dir=DIR

Other than resnet50.py: blocks stride in their first 1×1 convolution, 3.9 and not 4.1 billion
multiply-adds. DIR as in configs/resnet50_imagenet.py.

Expected: 75.3 top-1 at 224, one central crop, no flips (the authors' release, which augments by
resizing). Not run here. Cost: 90 × 1.28 million images of 224 pixels; modelled: 1.3 h on 8 A100,
0.82 h on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 256
    config.num_epochs = 90
    config.model.name = "resnet50_v1"
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
