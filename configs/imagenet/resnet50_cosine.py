"""ResNet-50 on ImageNet-1k, 100 epochs of cosine: the recipe of Flax's own example.

    python launch.py --config=configs/imagenet/resnet50_cosine.py --config.data.dir=DIR

Other than resnet50.py: cosine to nothing after 5 epochs of warm-up, Nesterov momentum, residual
branches that start at zero, no decay on norms and biases. DIR as in configs/resnet50_imagenet.py.

Expected: 76.3 to 76.7 top-1 at 224, one central crop, no flips (the Flax example's README, by
hardware). Not run here. Cost: 100 × 1.28 million images of 224 pixels; modelled: 1.6 h on 8 A100,
0.95 h on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 256
    config.num_epochs = 100
    config.model.name = "resnet50"
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.eval_size = 224
    config.data.eval_crop = 0.875
    config.data.random_resized_crop = True
    config.data.flip = True
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = 256
    config.schedule.warmup_epochs = 5
    return config
