"""ResNet-50 on ImageNet-1k in 16 epochs with images that grow: a budget recipe.

    python launch.py --config=configs/imagenet/resnet50_16_epochs.py --config.data.dir=DIR

Other than resnet50_cosine.py: 160 pixels up to epoch 12, then 192, scored at 256; batches of 1,024
at a rate of 1.7 that falls in a line after 2 epochs of warm-up; plain momentum; label smoothing.
The settings are those of FFCV's recipe, without its anti-aliased convolutions. DIR as in
configs/resnet50_imagenet.py.

Expected: somewhat under 73.8 top-1 at 256 (FFCV's README, anti-aliased and with flips at test time;
here without either). Not run here. Cost: 12 × 1.28 million images of 160 and 4 × of 192 pixels;
modelled: 0.14 h on 8 A100, 0.086 h on 8 H100.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 1024
    config.num_epochs = 16
    config.model.name = "resnet50"
    config.data.name = "imagenet2012"
    config.data.image_size = 192
    config.data.progressive_sizes = (160,)
    config.data.progressive_epochs = (12.0,)
    config.data.eval_size = 256
    config.data.eval_crop = 0.875
    config.data.random_resized_crop = True
    config.data.flip = True
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "polynomial"
    config.schedule.base_lr = 1.7
    config.schedule.base_batch_size = 1024
    config.schedule.warmup_epochs = 2
    config.schedule.power = 1.0
    config.loss.label_smoothing = 0.1
    return config
