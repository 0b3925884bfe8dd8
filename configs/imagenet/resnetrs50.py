"""ResNet-RS-50 on ImageNet-1k at 160 pixels: Bello et al. 2021.

    python launch.py --config=configs/imagenet/resnetrs50.py --config.data.dir=DIR

Other than resnet50d_bag_of_tricks.py: gates (squeeze and excitation), 160 pixels, batches of 4,096,
350 epochs, RandAugment as in its paper, no colour jitter, no mixup, plain momentum, dropout, less
decay, and a moving average with TensorFlow's warm-up. DIR as in configs/resnet50_imagenet.py.

Expected: 78.8 top-1 at 160, one central crop, no flips (the README of tensorflow/tpu's resnet_rs).
Not run here. Cost: 350 × 1.28 million images of 160 pixels; modelled: 3.5 h on 8 A100, 2.2 h on 8
H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 4096
    config.num_epochs = 350
    config.model.name = "resnetrs50"
    config.model.dropout = 0.25
    config.data.name = "imagenet2012"
    config.data.image_size = 160
    config.data.eval_size = 160
    config.data.eval_crop = 0.875
    config.data.random_resized_crop = True
    config.data.flip = True
    config.data.policy = "randaugment"
    config.data.policy_n = 2
    config.data.policy_m = 10.0
    config.data.policy_probability = 1.0
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 4e-5
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = 256
    config.schedule.warmup_epochs = 5
    config.loss.label_smoothing = 0.1
    config.ema.decay = 0.9999
    config.ema.every = 1
    config.ema.warmup = True
    return config
