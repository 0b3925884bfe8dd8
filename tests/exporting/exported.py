"""Small networks with random variables to export, and processes that cannot import this package."""

import os
import subprocess
import sys

import jax
import numpy as np

from resnet_jax import ResNet
from resnet_jax.description import Description
from resnet_jax.exporting.network import Network

TINY = {"stage_sizes": (1, 1), "width": 8, "num_classes": 3}
SIZE = 21  # odd, so that every stride meets an edge


def random_network(size=SIZE, channels=3, model=None, **fields):
    """Returns a small network, or `model`, whose statistics are not those of a fresh one."""
    model = model or ResNet(**{**TINY, **fields})
    image = np.zeros((1, size, size, channels), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    draw = np.random.default_rng(0)

    def values(path, leaf):
        drawn = draw.standard_normal(leaf.shape, np.float32)
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return (
            drawn * np.float32(fan_in**-0.5) if path[-1].key == "kernel" else (1 + 0.3 * drawn) ** 2
        )

    about = Description(
        classes=tuple(f"class {number}" for number in range(model.num_classes)),
        image_size=size,
        eval_size=size,
        crop=0.9,
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.25, 0.3)[:channels],
        source="a test",
    )
    variables = jax.tree_util.tree_map_with_path(values, shapes)
    return Network(model, variables, about)


def run_alone(code, directory, **environment):
    """Runs Python in a directory, in a process that can import neither flax nor this package."""
    blocked = "import sys\nfor name in ('flax', 'resnet_jax'):\n    sys.modules[name] = None\n"
    environment = os.environ | {"PYTHONPATH": "", "XLA_FLAGS": ""} | environment
    done = subprocess.run(
        [sys.executable, "-c", blocked + code],
        check=False,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_of_card(directory):
    """Returns the Python block of a card."""
    return (directory / "README.md").read_text().split("```python\n")[1].split("```")[0]
