"""One step of a recipe: of shapes alone, or a real one on fabricated data in the published format."""

import fabricate
import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax import config as config_lib
from resnet_jax import recipes, save_torch
from resnet_jax.commands.train import train
from resnet_jax.experiment import Experiment
from resnet_jax.training.reporting import logbook


def fabricated(config, root, train=8):
    """Points a recipe at a small data set with the structure of its own."""
    name = config.data.name
    if name.startswith("imagenet2012"):
        fabricate.imagenet(root, train=train, validation=4)
    elif name.startswith("imagenette"):
        jpegs = [(fabricate.jpeg(i), i % 10) for i in range(train)]
        splits = {"train": jpegs, "validation": jpegs[:4]}
        fabricate.tfds_directory(
            root, splits, name=name, version="1.0.0", classes=[f"n{i}" for i in range(10)]
        )
    elif name == "fashion_mnist":
        fabricate.idx_directory(root, train=80, test=8, size=28)
        config.data.name = "idx"
    elif name == "cifar":
        fabricate.cifar_directory(root, per_file=4)
    elif name == "folder":
        pictures = {f"class {i}": [fabricate.jpeg(2 * n + i) for n in range(9)] for i in range(2)}
        splits = [""] if config.data.eval_fraction else ["train", "val"]
        fabricate.folder_tree(root, dict.fromkeys(splits, pictures))
    config.data.dir = None if name == "digits" else str(root)


def narrow(config, stages):
    """Gives a recipe a network of `stages` narrow blocks, which keeps its other fields in play."""
    # A group keeps a channel at least.
    width = max(8, 64 // config_lib.build_model(config).width_per_group)
    config.model.stage_sizes, config.model.width = (1,) * stages, width
    if config.model.norm_group_size:
        config.model.norm_group_size = 4


def take_a_step(path, root, stages=None):
    """Trains a recipe for a step on its own kind of data, and scores it.

    Args:
      path: of the recipe.
      root: an empty directory.
      stages: of the network; None: as many as the recipe has.
    """
    config = recipes.load(path)
    # A batch of repeated views shows four images at least.
    rows = 8 if config.data.repeats == 1 else 16
    fabricated(config, root / "data", train=rows)
    config.batch_size, config.num_epochs = rows, 1
    if config.data.name != "folder":  # a part of which would lack whole classes
        config.data.train_split = f"train[:{rows}]"
    if (config.data.eval_split or "").startswith("train["):  # held out of what is not trained on
        config.data.eval_split = f"train[{rows}:]"
    if config.data.image_size:
        config.data.image_size, config.data.eval_size = 64, None
    if config.data.progressive_sizes:
        config.data.progressive_sizes, config.data.progressive_epochs = (48,), (1.0,)
    narrow(config, stages or len(config_lib.build_model(config).stage_sizes))
    if config.init.weights:
        model = config_lib.build_model(config)
        images = jnp.zeros((1, 64, 64, 3))
        save_torch(model.init(jax.random.key(0), images), root / "weights.safetensors")
        config.init.weights = str(root / "weights.safetensors")
    config_lib.validate(config)
    train(config, str(root / "run"))
    records = logbook.read(root / "run")
    assert [record["split"] == "train" for record in records] == [True, False]
    assert all(np.isfinite(record["loss"]) for record in records)


def trace(config):
    """Traces the network, optimizer and augmentation of a recipe on shapes alone."""
    config.data.name, config.data.dir = "synthetic", None
    config.data.train_split = config.data.eval_split = None
    config.init.weights = None
    if config.data.image_size is None:
        config.data.image_size = 32
    config.model.stage_sizes = (1, 1)
    # Recipes made for one device need not divide over those here.
    config.batch_size = -(-config.batch_size // jax.device_count()) * jax.device_count()
    config_lib.validate(config)
    experiment = Experiment.for_training(config)
    # Options of the compiler are refused inside of a trace.
    experiment._jit_once = lambda function, **options: function
    state = jax.eval_shape(experiment.create_state)
    rows = (config.batch_size,)
    numbers = ("label", "index", "epoch", *(["copy"] if config.data.repeats > 1 else []))
    for phase in experiment.phases:
        batch = {
            "image": jax.ShapeDtypeStruct((*rows, *phase.image_shape), np.uint8),
            "mask": jax.ShapeDtypeStruct(rows, bool),
            **{name: jax.ShapeDtypeStruct(rows, np.int32) for name in numbers},
        }
        images, targets = jax.eval_shape(experiment.augment, batch, state.seed)
        assert images.shape == (*rows, *phase.image_shape)
        assert targets.shape == (*rows, experiment.config.model.num_classes)
