"""SE-ResNeXt-50-D on Imagenette at 192 pixels, 20 epochs; 5 and 80 by one field.

    python launch.py --config=configs/imagenette/seresnext50d_192.py --config.data.dir=DIR

Other than seresnext50d_128.py: the size, and so the archive: DIR is imagenette2-320, unpacked.

Expected: not known. The best of the board (fastai/imagenette, September 2022): 86.76 after 5
epochs and 92.50 after 20, means of five runs, 94.50 after 80, one run. Not run here: the data could
not be had. Cost: 20 × 9,469 images of 192 pixels.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 64
    config.num_epochs = 20
    config.model.name = "resnext50d_32x4d"
    config.model.se_ratio = 1 / 16
    config.data.name = "folder"
    config.data.image_size = 192
    config.data.eval_size = 192
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
