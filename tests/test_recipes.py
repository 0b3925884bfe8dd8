"""Every recipe is run for one step on fabricated data in the published format, so that none can
rot.
"""

import importlib.util
from pathlib import Path

import fabricate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import config as config_lib
from resnet_jax import save_torch
from resnet_jax.commands.train import train
from resnet_jax.training.reporting import logbook

ROOT = Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fabricated(config, root):
    """Points a recipe at a small data set with the structure of its own."""
    name = config.data.name
    if name.startswith("imagenet2012"):
        fabricate.imagenet(root, train=8, validation=4)
    elif name.startswith("imagenette"):
        jpegs = [(fabricate.jpeg(i), i % 10) for i in range(8)]
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
        fabricate.folder_tree(root, {"": pictures})
    config.data.dir = None if name == "digits" else str(root)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.py")), ids=lambda path: path.stem)
def test_a_recipe_takes_a_step_and_is_evaluated(path, tmp_path):
    config = load(path).get_config()
    fabricated(config, tmp_path / "data")
    # Stages of one block keep every field of the recipe in play and compile in seconds.
    config.batch_size, config.num_epochs = 8, 1
    if config.data.name != "folder":  # a part of which would lack whole classes
        config.data.train_split = "train[:8]"
    if config.data.image_size:
        config.data.image_size = 64
    config.model.stage_sizes = (1,) * len(config_lib.build_model(config).stage_sizes)
    config.model.width = 8
    if config.model.norm_group_size:
        config.model.norm_group_size = 4
    if config.init.weights:
        model = config_lib.build_model(config)
        images = jnp.zeros((1, 64, 64, 3))
        save_torch(model.init(jax.random.key(0), images), tmp_path / "weights.safetensors")
        config.init.weights = str(tmp_path / "weights.safetensors")
    config_lib.validate(config)
    train(config, str(tmp_path / "run"))
    records = logbook.read(tmp_path / "run")
    assert [record["split"] == "train" for record in records] == [True, False]
    assert all(np.isfinite(record["loss"]) for record in records)


def test_the_hybrid_example_learns_its_batch():
    hybrid = load(ROOT / "examples" / "hybrid.py")
    images = jax.random.normal(jax.random.key(0), (8, 32, 32, 3))
    losses = hybrid.train(hybrid.Hybrid(width=8, head=32), images, jnp.arange(8), steps=12)
    assert losses[-1] < 0.5 * losses[0]
