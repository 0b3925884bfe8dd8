"""Our max pooling is XLA's: the same maxima, and the gradient to the same pixels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.ops.max_pool import max_pool


def stock(x):
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@pytest.fixture(params=["cpu", "tpu"], autouse=True)
def platform(request, monkeypatch):
    """Every test holds for each platform's form, all of which run here."""

    def choose(*operands, default, **forms):
        return forms.get(request.param, default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)


def draw(shape, *, ties, dtype=np.float64):
    """Images with many equal neighbours, or with none."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, shape) if ties else rng.normal(size=shape)
    return x.astype(dtype)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("shape", [(2, 8, 8, 4), (2, 7, 9, 3), (3, 1, 2, 4), (2, 5, 1, 4)])
def test_maxima_and_gradient_are_xlas(shape, ties):
    x = draw(shape, ties=ties)
    with jax.enable_x64(True):
        expected, stock_pullback = jax.vjp(stock, x)
        pooled, pullback = jax.vjp(max_pool, x)
        cotangent = np.random.default_rng(1).normal(size=pooled.shape)
        np.testing.assert_array_equal(pooled, expected)
        np.testing.assert_allclose(pullback(cotangent)[0], stock_pullback(cotangent)[0], atol=1e-14)


def test_forward_mode_is_the_transpose_of_reverse_mode():
    x = draw((2, 6, 6, 4), ties=True, dtype=np.float32)
    tangent = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    pooled, pushed = jax.jvp(max_pool, (x,), (tangent,))
    cotangent = np.random.default_rng(2).normal(size=pooled.shape).astype(np.float32)
    pulled = jax.vjp(max_pool, x)[1](cotangent)[0]
    np.testing.assert_allclose(np.vdot(pushed, cotangent), np.vdot(tangent, pulled), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_and_vmap(dtype):
    x = jnp.asarray(draw((3, 2, 6, 6, 4), ties=True), dtype)
    pooled = jax.vmap(max_pool)(x)
    assert pooled.dtype == x.dtype
    np.testing.assert_array_equal(
        np.asarray(pooled[1], np.float32), np.asarray(stock(x[1]), np.float32)
    )


def test_nan_stays_visible():
    x = draw((1, 4, 4, 1), ties=False, dtype=np.float32)
    x[0, 1, 1, 0] = np.nan
    assert np.isnan(max_pool(x)).all()
