"""ResNet-8 on 1,797 handwritten digits, which come with the package: a run to see that everything
works.

    python launch.py --config=configs/quickstart.py

Expected: at least 0.98 test top-1 after 20 epochs. Cost: about a minute on two CPU cores.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 64
    config.num_epochs = 20
    config.model.name = "resnet18"
    config.model.stem = "small"
    config.model.width = 16
    config.model.stage_sizes = (1, 1, 1)
    config.data.name = "digits"
    config.data.pad_and_crop = 1
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.4
    config.schedule.base_batch_size = 256
    config.schedule.warmup_epochs = 2
    return config
