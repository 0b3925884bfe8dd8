"""Operations that differ by platform export for all of them and leave no choice to run time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.ops.batch_norm import batch_normalize
from resnet_jax.ops.conv2d import conv2d
from resnet_jax.ops.max_pool import max_pool
from resnet_jax.ops.relu import relu


def normalize(x):
    ones = jnp.ones(x.shape[-1])
    return batch_normalize(x, ones, ones, 0 * ones, 2, 1e-5, None)[0]


def convolve(x):
    return conv2d(x, jnp.ones((1, 1, 3, 4)), strides=(2, 2))


@pytest.fixture(
    params=[max_pool, normalize, convolve, relu], ids=lambda function: function.__name__
)
def gradient(request):
    """The gradient of an operation, under `vmap` and `jax.checkpoint`."""
    operation = jax.checkpoint(request.param)
    return jax.jit(jax.vmap(jax.grad(lambda x: jnp.sum(operation(x) ** 3))))


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 6, 3)), jnp.float32)


def test_an_export_for_every_platform_runs_here(gradient, x):
    export = jax.export.export(gradient, platforms=("cpu", "cuda", "tpu"))
    np.testing.assert_allclose(export(x).call(x), gradient(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gradient", [max_pool, normalize, convolve], indirect=True)
def test_the_compiled_program_has_no_conditional(gradient, x):
    assert " conditional(" not in gradient.lower(x).compile().as_text()
