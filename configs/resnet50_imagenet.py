"""ResNet-50 v1.5 on ImageNet-1k: the 90-epoch recipe of Goyal et al. 2017 at batch 256.

    python launch.py --config=configs/resnet50_imagenet.py --config.data.dir=DIR

DIR is a TFDS directory that holds imagenet2012. A folder tree takes --config.data.name=folder.
ImageNet's two tars, in TARS, are packed first, by python launch.py --mode=prepare
--source=imagenet_tars --data_dir=TARS --output_dir=SHARDS, and then take --config.data.name=shards
--config.data.dir=SHARDS.

The batch is global: with another --config.batch_size the rate scales with it. Other than in the
paper, momentum is not Nesterov's and BatchNorm takes the whole batch, not 32 images
(--config.model.norm_group_size=32).

Expected: 76 to 76.5 top-1 (torchvision 76.13, Goyal et al. 76.40); not run here. Cost: 90 × 1.28
million images; modelled: 1.4 h on 8 A100, 0.86 h on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 256
    config.num_epochs = 90
    config.model.name = "resnet50"
    config.data.name = "imagenet2012"
    config.data.image_size = 224
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
    return config
