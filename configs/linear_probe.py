"""A linear probe: a new classifier on a pretrained ResNet-50, of which nothing else is trained.

    pip install huggingface_hub
    python launch.py --config=configs/linear_probe.py --config.data.dir=pictures

docs/linear_probe.md takes you through it. It says how good a network's features are for your
pictures, and is the cheapest way to a classifier of them: the frozen network computes no gradients.

Expected: depends on the pictures. Not run here: the hub could not be reached; the same on half of
Fashion-MNIST is in results/finetune.md. Cost: 102 MB to fetch once.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 64
    config.num_epochs = 15
    config.model.name = "resnet50"
    config.init.weights = "timm/resnet50.a1_in1k"
    config.init.head = "fresh"
    config.data.name = "folder"
    config.data.dir = "pictures"
    config.data.eval_fraction = 0.2
    # As the network was trained and is scored; mean and deviation come with the weights.
    config.data.image_size = 224
    config.data.interpolation = "bicubic"
    config.data.eval_crop = 0.95
    config.data.crop_scale = (0.35, 1.0)
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 0.0
    config.optimizer.freeze = ("all but fc",)
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = None
    return config
