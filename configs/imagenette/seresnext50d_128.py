"""SE-ResNeXt-50-D on Imagenette at 128 pixels, 20 epochs; 5 and 80 by one field.

    python launch.py --config=configs/imagenette/seresnext50d_128.py --config.data.dir=DIR

Ten classes of ImageNet: DIR is the published archive imagenette2-160, unpacked, with its folders
train and val. The network, crops (35 to 100 % of the area), batch and label smoothing are near
those of the public board's runs of January 2020, without their self-attention; SGD and a cosine
stand for their Ranger. --config.num_epochs takes 5 and 80; their runs of 80 epochs and more have
mixup, as --config.data.mixup=0.2 gives it.

Expected: not known. The best of the board (fastai/imagenette, September 2022): 87.43 after 5
epochs and 91.57 after 20, means of five runs, 93.55 after 80, one run; runs differ by 1 there. Not
run here: the data could not be had. Cost: 20 × 9,469 images of 128 pixels.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 64
    config.num_epochs = 20
    config.model.name = "resnext50d_32x4d"
    config.model.se_ratio = 1 / 16
    config.data.name = "folder"
    config.data.image_size = 128
    config.data.eval_size = 128
    config.data.random_resized_crop = True
    config.data.crop_scale = (0.35, 1.0)
    config.data.flip = True
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.05
    config.schedule.base_batch_size = 64
    config.schedule.warmup_epochs = 1
    config.loss.label_smoothing = 0.1
    return config
