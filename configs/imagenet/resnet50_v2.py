"""ResNet-50 v2 on ImageNet-1k: He et al. 2016, full pre-activation.

    python launch.py --config=configs/imagenet/resnet50_v2.py --config.data.dir=DIR

Other than resnet50.py: normalisation and ReLU come before each convolution. DIR as in
configs/resnet50_imagenet.py.

Expected: about that of resnet50.py, 76.1 top-1 at 224 without flips; the paper has 200 layers and
more only. Not run here. Cost: 90 × 1.28 million images of 224 pixels; modelled: 1.3 h on 8 A100,
0.78 h on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 256
    config.num_epochs = 90
    config.model.name = "resnet50_v2"
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
