"""Other ways to state the same training step, to be timed beside the library's own.
docs/gpu_notes.md says why.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import layers
from resnet_jax.ops.formulations import Geometry, direct, pointwise

# The results of these are kept for the backward pass; all else is computed anew.
KEPT = frozenset(
    {"conv2d", "conv_general_dilated", "dot_general", "reduce_sum", "reduce_window_max"}
)


def space_to_depth(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A 7x7 kernel with stride 2 and padding 3 as a 4x4 one with stride 1 over 2x2 pixels side by
    side.

    With a row and a column of zeros before it the kernel is 8x8, and its taps fall into pairs that
    start at even pixels. Height and width of the images must be even.
    """
    images, kernel = (
        _paired(images),
        _paired(jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))[None])[0],
    )
    height, width = geometry.image_size
    padding = ((2, 1), (2, 1))
    return direct(images, kernel, Geometry((height // 2, width // 2), (4, 4), (1, 1), padding, 1))


def _paired(x: jax.Array) -> jax.Array:
    """[N, H, W, C, ...] -> [N, H / 2, W / 2, 4 C, ...]."""
    n, height, width, channels, *rest = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels, *rest)
    return jnp.moveaxis(x, 2, 3).reshape(n, height // 2, width // 2, 4 * channels, *rest)


def _convolve_by(formulation: Callable, suits: Callable[[Geometry], bool]) -> Callable:
    """A variant in which the convolutions that `suits` names are written by `formulation`."""

    def apply(model: nn.Module, images: np.ndarray) -> tuple[nn.Module, np.ndarray]:
        own = layers.conv2d

        def conv2d(images, kernel, *, strides=(1, 1), padding=((0, 0), (0, 0)), groups=1):
            geometry = Geometry(
                images.shape[1:3], kernel.shape[:2], tuple(strides), tuple(padding), groups
            )
            if suits(geometry):
                return formulation(images, kernel, geometry)
            return own(images, kernel, strides=strides, padding=padding, groups=groups)

        layers.conv2d = conv2d
        return model, images

    return apply


class Recomputing:
    """A network whose normalised and rectified maps are computed anew in the backward pass."""

    def __init__(self, model: nn.Module):
        self._model = model
        self.init = model.init

    def apply(self, variables: Any, images: jax.Array, **fields: Any) -> Any:
        """As the network's own."""
        keep = jax.checkpoint(
            lambda variables, images: self._model.apply(variables, images, **fields),
            policy=lambda primitive, *_, **__: primitive.name in KEPT,
        )
        return keep(variables, images)


def _recompute(model: nn.Module, images: np.ndarray) -> tuple[Recomputing, np.ndarray]:
    return Recomputing(model), images


def _four_channels(model: nn.Module, images: np.ndarray) -> tuple[nn.Module, np.ndarray]:
    """Zeros as the fourth channel, so that a pixel is 8 bytes; the stem's kernel then has a fourth
    channel too.
    """
    return model, np.pad(images, ((0, 0), (0, 0), (0, 0), (0, 4 - images.shape[3])))


# name -> a function of the network and its images that returns what takes their place.
FORMULATIONS = {
    "matmul": _convolve_by(pointwise, lambda it: it.kernel_size == (1, 1) and it.groups == 1),
    "space_to_depth": _convolve_by(
        space_to_depth,
        lambda it: it.kernel_size == (7, 7) and not any(size % 2 for size in it.image_size),
    ),
    "four_channels": _four_channels,
    "recompute": _recompute,
}
