"""Your own pictures, a folder for each class, from a ResNet-18 that ImageNet has taught to see.

    pip install huggingface_hub
    python launch.py --config=configs/finetune_folder.py --config.data.dir=pictures

docs/finetune_folder.md takes you through it. For three epochs a new classifier is trained on the
frozen network, then all of it, the network at a tenth of the rate. A fifth of the pictures is held
out and scored. For a ResNet-50: --config.model.name=resnet50
--config.init.weights=timm/resnet50.a1_in1k.

Expected: depends on the pictures; a few dozen of each class often suffice. Not run here: the hub
could not be reached; the same on half of Fashion-MNIST is in results/finetune.md. Cost: 46 MB to
fetch once.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 32
    config.num_epochs = 12
    config.model.name = "resnet18"
    config.init.weights = "timm/resnet18.a1_in1k"
    config.data.name = "folder"
    config.data.dir = "pictures"
    config.data.eval_fraction = 0.2
    # As the network was trained and is scored; mean and deviation come with the weights.
    config.data.image_size = 224
    config.data.interpolation = "bicubic"
    config.data.eval_crop = 0.95
    config.data.crop_scale = (0.35, 1.0)
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.freeze = ("all but fc",)
    config.optimizer.freeze_epochs = 3
    config.optimizer.rates = ("all but fc=0.1",)
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.02
    config.schedule.base_batch_size = None
    config.schedule.warmup_epochs = 1
    return config
