"""The variants that the GPU contest times compute what the library computes."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import our_variants
from benchmarks.gpu_contestants import VARIANTS
from resnet_jax.models import ResNet, layers
from resnet_jax.ops.formulations import Geometry, direct

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_convolution(monkeypatch):
    """Puts the library's convolution back after a variant that replaced it."""
    monkeypatch.setattr(layers, "conv2d", layers.conv2d)


def loss_of(model):
    """A scalar function of variables and images, in training."""

    def loss(variables, images):
        logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(logits))

    return loss


def gradients(model, variables, images):
    return jax.jit(jax.grad(loss_of(model)))(variables, images)["params"]


@pytest.mark.parametrize("name", ["matmul", "space_to_depth", "recompute"])
def test_a_formulation_has_the_same_gradients_and_is_another_program(name):
    model = ResNet(stage_sizes=(1,), width=8, num_classes=5)
    images = np.random.default_rng(0).normal(size=(4, 20, 16, 3)).astype(np.float32)
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    expected, program = (
        gradients(model, variables, images),
        str(jax.make_jaxpr(loss_of(model))(variables, images)),
    )
    other, same_images = our_variants.FORMULATIONS[name](model, images)
    assert same_images is images
    assert str(jax.make_jaxpr(loss_of(other))(variables, images)) != program
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-6),
        gradients(other, variables, images),
        expected,
    )


def test_recomputing_keeps_fewer_bytes():
    model = ResNet(stage_sizes=(2,), width=8, num_classes=5)
    images = np.zeros((4, 32, 32, 3), np.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))

    def kept(model):
        _, pull = jax.eval_shape(
            lambda v: jax.vjp(lambda v: loss_of(model)(v, images), v), variables
        )
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))

    other, _ = our_variants.FORMULATIONS["recompute"](model, images)
    assert kept(other) < 0.7 * kept(model)


def test_space_to_depth_is_the_strided_convolution():
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 10, 14, 3)), rng.normal(size=(7, 7, 3, 5))
    geometry = Geometry((10, 14), (7, 7), (2, 2), ((3, 3), (3, 3)), 1)
    expected = direct(jnp.float32(images), jnp.float32(kernel), geometry)
    found = our_variants.space_to_depth(jnp.float32(images), jnp.float32(kernel), geometry)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_fourth_channel_is_zeros():
    images = np.ones((2, 4, 4, 3), np.float32)
    _, padded = our_variants.FORMULATIONS["four_channels"](None, images)
    assert padded.shape == (2, 4, 4, 4)
    assert padded.sum() == images.sum()
    assert not padded[..., 3].any()


def test_xla_knows_every_settled_flag():
    flags = [flag for variant in VARIANTS.values() for flag in variant.xla_flags.split()]
    # These come and go with XLA's versions; where they are unknown, the contest says so in their
    # row.
    flags = " ".join(
        flag for flag in flags if "experimental" not in flag and "unsupported" not in flag
    )
    assert flags
    command = [sys.executable, "-c", "import jax; jax.numpy.zeros(1)"]
    environment = {**os.environ, "XLA_FLAGS": flags}
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr[-300:]


def test_every_variant_has_a_prediction():
    notes = (ROOT / "docs" / "gpu_notes.md").read_text()
    assert [name for name in VARIANTS if f"`{name}`" not in notes] == []
