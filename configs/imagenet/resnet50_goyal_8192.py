"""ResNet-50 on ImageNet-1k in batches of 8,192: Goyal et al. 2017.

    python launch.py --config=configs/imagenet/resnet50_goyal_8192.py --config.data.dir=DIR

Other than configs/resnet50_imagenet.py: the batch. The rate is scaled linearly to 3.2 and reached
over five epochs, starting from the 0.1 of a batch of 256 (section 2.2); BatchNorm takes its
statistics over 32 images, as there over the share of a GPU (section 3); momentum is not Nesterov's.
Where 8,192 images do not fit, --config.accumulate_steps splits the batch, see docs/batchnorm.md.
DIR as in configs/resnet50_imagenet.py.

Expected: 76.3 top-1 at 224, one central crop, no flips (Goyal et al. 2017: 76.26 ± 0.09 at 8,192,
76.40 ± 0.12 at 256). Not run here. Cost: 90 × 1.28 million images of 224 pixels in 14,040 steps;
modelled: 1.4 h on 8 A100, 0.86 h on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 8192
    config.num_epochs = 90
    config.model.name = "resnet50"
    config.model.norm_group_size = 32
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.eval_size = 224
    config.data.eval_crop = 0.875
    config.data.random_resized_crop = True
    config.data.flip = True
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = 256
    config.schedule.boundaries = (30.0, 60.0, 80.0)
    config.schedule.factor = 0.1
    config.schedule.warmup_epochs = 5
    config.schedule.warmup_factor = 256 / 8192
    return config
