"""ResNet-18 on Fashion-MNIST (60,000 + 10,000 grey images of 28×28), five epochs.

    python launch.py --config=configs/resnet18_fashion_mnist.py
    python launch.py --config=configs/resnet18_fashion_mnist.py --config.data.name=idx
    --config.data.dir=DIR

The first line reads the copy that TFDS has prepared, the second the published IDX files in DIR.

Expected: 0.9126 ± 0.0027 test top-1 (seeds 0, 1 and 2). Cost: 5 × 60,000 images, about a minute and
a half an epoch on two CPU cores.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 5
    config.model.name = "resnet18"
    config.data.name = "fashion_mnist"
    config.data.flip = True
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = 256
    config.schedule.warmup_epochs = 0.5
    return config
