"""ResNet-50 on ImageNet-1k in 300 epochs: A2 of “ResNet strikes back”.

    python launch.py --config=configs/imagenet/resnet50_rsb_a2.py --config.data.dir=DIR

Other than resnet50_rsb_a3.py: 224 pixels, 300 epochs, three views of an image in a batch (repeated
augmentation, after which an epoch shows a third of the images), RandAugment of magnitude 7,
stochastic depth, a lower rate. DIR as in configs/resnet50_imagenet.py.

Expected: 79.8 top-1 at 224, crop 0.95, no flips (timm's results: 79.83; mmpretrain: 79.55). Not run
here. Cost: 300 × 1.28 million images of 224 pixels; modelled: 4.7 h on 8 A100, 2.9 h on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 2048
    config.num_epochs = 300
    config.model.name = "resnet50"
    config.model.stochastic_depth = 0.05
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.eval_size = 224
    config.data.eval_crop = 0.95
    config.data.interpolation = "bicubic"
    config.data.random_resized_crop = True
    config.data.flip = True
    config.data.repeats = 3
    config.data.policy = "randaugment"
    config.data.policy_n = 2
    config.data.policy_m = 7.0
    config.data.policy_mstd = 0.5
    config.data.policy_inc = True
    config.data.policy_probability = 0.5
    config.data.mixup = 0.1
    config.data.cutmix = 1.0
    config.optimizer.name = "lamb"
    config.optimizer.weight_decay = 0.02
    config.optimizer.eps = 1e-6
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.base_lr = 5e-3
    config.schedule.base_batch_size = None
    config.schedule.warmup_epochs = 5
    config.loss.name = "bce"
    return config
