"""Your own pictures, a folder for each class, from nothing: docs/folder.md takes you through it.

    python launch.py --config=configs/folder.py --config.data.dir=pictures

A small ResNet on images of 64 pixels. A fifth of the pictures is held out and scored.

Expected: depends on the pictures; with a few hundred of each class, far better than chance. With
fewer, start from a pretrained network: configs/finetune_folder.py. Cost: about two minutes for each
thousand pictures on two CPU cores.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 32
    config.num_epochs = 30
    config.model.name = "resnet18"
    config.model.stem = "small"
    config.model.stem_pool = "max"
    config.model.stage_sizes = (1, 1, 1, 1)
    config.model.width = 16
    config.data.name = "folder"
    config.data.dir = "pictures"
    config.data.eval_fraction = 0.2
    config.data.image_size = 64
    config.data.crop_scale = (0.35, 1.0)
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.05
    config.schedule.base_batch_size = None
    config.schedule.warmup_epochs = 3
    config.loss.label_smoothing = 0.1
    return config
