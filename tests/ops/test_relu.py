"""Our ReLU is JAX's: the same values and derivatives of any order, on every platform."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.ops.relu import relu

VALUES = jnp.array([-2.0, -0.0, 0.0, 3.0, -jnp.inf, jnp.inf, jnp.nan])


@pytest.fixture(params=["cpu", "cuda", "tpu"])
def platform(request, monkeypatch):
    """Each platform's form, all of which run here."""

    def choose(*operands, default, **forms):
        return forms.get(request.param, default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)


@pytest.fixture(params=[True, False], ids=["of a sum", "of one map"])
def ours(request, platform):
    return partial(relu, of_sum=request.param)


def test_values_and_gradient_are_jaxs(ours):
    np.testing.assert_array_equal(ours(VALUES), jax.nn.relu(VALUES))
    gradients = (jax.grad(lambda x: jnp.sum(3 * f(x)))(VALUES) for f in (ours, jax.nn.relu))
    np.testing.assert_array_equal(*gradients)


def test_forward_mode_and_second_derivatives_under_vmap_are_jaxs(ours):
    x = jnp.array([[-1.0, 2.0], [3.0, -4.0]])

    def curvature(f):
        def slope(x):
            return jax.jvp(lambda x: jnp.sum(f(x) ** 3), (x,), (x,))[1]

        return jax.jit(jax.vmap(jax.grad(slope)))(x)

    np.testing.assert_allclose(curvature(ours), curvature(jax.nn.relu), rtol=1e-6)


def test_the_cpu_writes_the_map_and_its_cotangent_once():
    def chain(x, w):
        for _ in range(2):
            x = relu(2 * x @ w + 1) + x
        return jnp.sum(jnp.sin(x))

    x = jnp.ones((64, 64))
    program = jax.jit(jax.grad(chain)).lower(x, x).compile().as_text()
    assert program.count(" conditional(") >= 3  # else XLA has seen through the barrier
