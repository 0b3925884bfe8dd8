"""conv2d is XLA's convolution, whatever its shape, its derivative and the transformation around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from resnet_jax.models.convolution import conv2d

# (side, channels, features, kernel, stride, padding, groups): one row for every formulation and for its edges.
SHAPES = {
    "stem 7x7": (28, 1, 8, 7, 2, 3, 1),
    "stem 7x7 colour": (32, 3, 16, 7, 2, 3, 1),
    "stem 3x3": (12, 3, 16, 3, 1, 1, 1),
    "3x3": (14, 16, 24, 3, 1, 1, 1),
    "3x3 wide": (7, 64, 64, 3, 1, 1, 1),
    "3x3 stride 2": (14, 16, 24, 3, 2, 1, 1),
    "3x3 stride 2 odd": (7, 32, 48, 3, 2, 1, 1),
    "3x3 on 4": (4, 16, 16, 3, 1, 1, 1),
    "3x3 stride 2 on 4": (4, 16, 24, 3, 2, 1, 1),
    "3x3 on 3": (3, 16, 16, 3, 1, 1, 1),
    "3x3 on 2": (2, 16, 24, 3, 1, 1, 1),
    "3x3 stride 2 on 2": (2, 16, 24, 3, 2, 1, 1),
    "3x3 on 1": (1, 16, 24, 3, 1, 1, 1),
    "7x7 on 2": (2, 8, 8, 7, 2, 3, 1),
    "7x7 on 4": (4, 3, 8, 7, 2, 3, 1),
    "1x1": (6, 16, 24, 1, 1, 0, 1),
    "1x1 stride 2": (7, 16, 24, 1, 2, 0, 1),
    "1x1 padded": (4, 16, 8, 1, 1, 1, 1),
    "2x2 stride 2": (8, 16, 24, 2, 2, 0, 1),
    "5x5": (9, 8, 8, 5, 1, 2, 1),
    "grouped": (8, 32, 64, 3, 1, 1, 4),
    "grouped stride 2": (8, 32, 64, 3, 2, 1, 32),
    "depth-wise on 2": (2, 16, 16, 3, 1, 1, 16),
}


def stock(images, kernel, strides, padding, groups):
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def draw(name, batch=3, dtype=np.float64):
    """Images, kernel, cotangent and conv2d's keywords for a row of SHAPES."""
    side, channels, features, kernel, stride, pad, groups = SHAPES[name]
    keywords = {"strides": (stride, stride), "padding": ((pad, pad), (pad, pad)), "groups": groups}
    rng = np.random.default_rng(len(name))
    images = rng.normal(size=(batch, side, side, channels)).astype(dtype)
    weights = rng.normal(size=(kernel, kernel, channels // groups, features)).astype(dtype)
    out = (side + 2 * pad - kernel) // stride + 1
    return images, weights, rng.normal(size=(batch, out, out, features)).astype(dtype), keywords


def output_and_gradients(function, images, weights, cotangent, keywords):
    output, pullback = jax.vjp(lambda x, w: function(x, w, **keywords), images, weights)
    return output, *pullback(cotangent)


def relative_error(value, truth):
    return np.linalg.norm(np.asarray(value, np.float64) - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("name", SHAPES)
def test_output_and_gradients_are_xlas(name):
    images, weights, cotangent, keywords = draw(name)
    with jax.enable_x64(True):
        truth = jax.jit(lambda *a: output_and_gradients(stock, *a, keywords))(images, weights, cotangent)
        double = jax.jit(lambda *a: output_and_gradients(conv2d, *a, keywords))(images, weights, cotangent)
    arrays = [jnp.asarray(a, jnp.float32) for a in (images, weights, cotangent)]
    single = jax.jit(lambda *a: output_and_gradients(conv2d, *a, keywords))(*arrays)
    for value, precise, reference in zip(single, double, truth, strict=True):
        reference = np.asarray(reference)
        assert (precise.dtype, value.dtype) == (np.float64, np.float32)
        assert precise.shape == value.shape == reference.shape
        assert relative_error(precise, reference) < 1e-14
        assert relative_error(value, reference) < 1e-6
        assert np.max(np.abs(value - reference)) < 1e-5 * np.max(np.abs(reference))
