"""ResNet-50-D on ImageNet-1k: the Bag of Tricks of He et al. 2019.

    python launch.py --config=configs/imagenet/resnet50d_bag_of_tricks.py --config.data.dir=DIR

Other than resnet50_cosine.py: the D stem and shortcuts, batches of 1,024, 200 epochs, label
smoothing, mixup, jittered colours; the paper's noise along the colours' principal axes is left out.
It also distils: --config.distill.teacher=NAME --config.distill.temperature=20 does, with a better
network of the same classes, in the paper a ResNet-152-D. DIR as in configs/resnet50_imagenet.py.

Expected: 79.15 top-1 at 224, one central crop, no flips; 79.29 with its teacher (He et al. 2019,
table 6). Not run here. Cost: 200 × 1.28 million images of 224 pixels; modelled: 3.3 h on 8 A100, 2
h on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 1024
    config.num_epochs = 200
    config.model.name = "resnet50d"
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.eval_size = 224
    config.data.eval_crop = 0.875
    config.data.random_resized_crop = True
    config.data.flip = True
    config.data.color_jitter = (0.4, 0.4, 0.4, 0.0)
    config.data.mixup = 0.2
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = 256
    config.schedule.warmup_epochs = 5
    config.loss.label_smoothing = 0.1
    return config
