"""The example of a training loop of one's own: whole-batch results on fake devices, and it learns."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from resnet_jax import ResNet

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop.py"
TINY = {"stage_sizes": (1, 1), "block": "basic", "width": 8, "stem": "small", "num_classes": 10}

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices, fake ones will do")


def steps(model, devices):
    example = runpy.run_path(str(EXAMPLE))
    mesh = jax.make_mesh(
        (devices,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    images = jax.random.normal(jax.random.key(0), (16, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images)
    optimizer = optax.sgd(0.1, momentum=0.9)
    step, state = example["make_step"](model, optimizer, mesh), optimizer.init(variables["params"])
    for seed in range(3):
        key = jax.random.key(seed)
        variables, state, loss = step(variables, state, images, jnp.arange(16) % 10, key)
    return variables, loss


def test_eight_devices_and_recomputed_blocks_give_what_one_device_gives():
    model = ResNet(**TINY, zero_init=False, axis_name="batch")
    one, other = steps(model, 1), steps(model.clone(remat="block"), 8)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_example_learns_and_stays_under_eighty_lines():
    losses = runpy.run_path(str(EXAMPLE))["train"](steps=8)
    assert losses[-1] < 0.98 * losses[0]
    assert len(EXAMPLE.read_text().splitlines()) < 80
