"""Our ReLU is JAX's: the same values and derivatives of any order, on every platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.ops.relu import relu

VALUES = jnp.array([-2.0, -0.0, 0.0, 3.0, -jnp.inf, jnp.inf, jnp.nan])


@pytest.fixture(params=["cpu", "cuda"], autouse=True)
def platform(request, monkeypatch):
    """Every test holds for each platform's form, all of which run here."""

    def choose(*operands, default, **forms):
        return forms.get(request.param, default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)


def test_values_and_gradient_are_jaxs():
    np.testing.assert_array_equal(relu(VALUES), jax.nn.relu(VALUES))
    gradients = (jax.grad(lambda x: jnp.sum(3 * f(x)))(VALUES) for f in (relu, jax.nn.relu))
    np.testing.assert_array_equal(*gradients)


def test_forward_mode_and_second_derivatives_under_vmap_are_jaxs():
    x = jnp.array([[-1.0, 2.0], [3.0, -4.0]])

    def curvature(f):
        def slope(x):
            return jax.jvp(lambda x: jnp.sum(f(x) ** 3), (x,), (x,))[1]

        return jax.jit(jax.vmap(jax.grad(slope)))(x)

    np.testing.assert_allclose(curvature(relu), curvature(jax.nn.relu), rtol=1e-6)
