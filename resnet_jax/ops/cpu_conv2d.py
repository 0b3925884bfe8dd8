"""Ways to write a convolution that XLA:CPU runs better than its own, chosen by shape.

A formulation is a function of images [N, H, W, C] and a kernel [kh, kw, C, F] that returns
[N, H', W', F]. It is linear in each of them, so its derivatives are formulations too: what XLA:CPU
(jaxlib 0.10) runs badly when asked plainly are 1x1 kernels, maps smaller than the kernel, and the
gradients of both. What it runs well still takes fewer products by Winograd's algorithm.
docs/speed_notes.md has the measurements behind the choices.
"""

import math
import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

NO_PADDING = ((0, 0), (0, 0))
WINOGRAD_CHANNELS = 32
# Multiply-adds in each of the 16 products; with less, what surrounds them outweighs them.
WINOGRAD_WORK = 10_000_000
# Lavin and Gray's B^T, G and A^T.
PIXELS = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
TAPS = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
PRODUCTS = ((1, 1, 1, 0), (0, 1, -1, -1))


class Geometry(NamedTuple):
    """The sizes that tie images, kernel and output together; pairs are (vertical, horizontal), in
    pixels.
    """

    image_size: tuple[int, int]
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]

    @property
    def output_size(self) -> tuple[int, int]:
        sizes = zip(*self, strict=True)
        height, width = ((image + sum(pad) - size) // step + 1 for image, size, step, pad in sizes)
        return height, width


def choose(geometry: Geometry, images: int, channels: int, features: int) -> Callable | None:
    """Returns the best formulation of a convolution, or None where that is XLA's own."""
    height, width = geometry.image_size
    if geometry.padding == NO_PADDING and geometry.kernel_size == (1, 1):
        return partial(_pointwise, geometry)
    small_and_strided = geometry.strides != (1, 1) and math.prod(geometry.kernel_size) <= 9
    if min(height, width) < 3 or small_and_strided:
        return partial(_patches, geometry)
    if (
        geometry.kernel_size != (3, 3)
        or geometry.strides != (1, 1)
        or min(channels, features) < WINOGRAD_CHANNELS
        # `jax.export` may leave the number of images open.
        or not isinstance(images, int)
    ):
        return None
    tiles = [-(-size // 2) for size in geometry.output_size]
    enough = math.prod((images, channels, features, *tiles)) >= WINOGRAD_WORK
    return partial(winograd, geometry) if enough else None


def _pointwise(geometry, images, kernel):
    """A 1x1 kernel without padding: one matmul over the pixels that the strides keep."""
    vertical, horizontal = geometry.strides
    return _matmul(images[:, ::vertical, ::horizontal], kernel[0, 0])


def _patches(geometry, images, kernel):
    """Every output pixel's window side by side, [N, H', W', kh * kw * C], then one matmul.

    Without the kernel's outer rows and columns that only ever meet padding.
    """
    live, padding = [], []
    for image, taps, stride, (before, after), count in zip(
        *geometry, geometry.output_size, strict=True
    ):
        reach = [(tap - before, tap - before + (count - 1) * stride) for tap in range(taps)]
        met = [tap for tap, (first, last) in enumerate(reach) if first < image and last >= 0]
        first, last = (met[0], met[-1]) if met else (0, 0)
        live.append(slice(first, last + 1))
        padding.append((before - first, after - (taps - 1 - last)))
    kernel, padded = kernel[tuple(live)], _padded(images, padding)
    if padded.shape[1:3] == kernel.shape[:2]:
        columns = padded.reshape(padded.shape[0], 1, 1, -1)
    else:
        grid = _taps(padded, kernel.shape[:2], geometry.strides, geometry.output_size)
        columns = lax.concatenate([tap for row in grid for tap in row], 3)
    return _matmul(columns, kernel.reshape(-1, kernel.shape[3]))


def winograd(geometry, images, kernel):
    """A 3x3 kernel with strides of one: 2x2 output pixels at a time, by 16 products a channel
    instead of 36.

    F(2x2, 3x3) of Lavin and Gray 2016 (Fast Algorithms for Convolutional Neural Networks, section
    4.1): tiles of 4x4 pixels that overlap by two are each turned into 16 values, the kernel
    likewise, and value by value it is a matmul. What lies between is 4 times as large as the map.
    """
    high, wide = (-(-size // 2) for size in geometry.output_size)
    (top, _), (left, _) = geometry.padding
    height, width = geometry.image_size
    bottom, right = 2 * high + 2 - top - height, 2 * wide + 2 - left - width
    # Without the barriers XLA:CPU computes the layers before and after again for each of the
    # products.
    padded = lax.optimization_barrier(_padded(images, ((top, bottom), (left, right))))
    pixels = _taps(padded, (4, 4), (2, 2), (high, wide))
    values = _both_ways(PIXELS, pixels)
    weights = _both_ways(TAPS, [[kernel[i, j] for j in range(3)] for i in range(3)])
    products = [_matmuls(*rows) for rows in zip(values, weights, strict=True)]
    outputs = _both_ways(PRODUCTS, products)
    grid = jnp.stack([jnp.stack(row, 3) for row in outputs], 2)
    tiled = grid.reshape(images.shape[0], 2 * high, 2 * wide, kernel.shape[3])
    return lax.optimization_barrier(tiled[:, : geometry.output_size[0], : geometry.output_size[1]])


def _both_ways(matrix, grid):
    """M grid M^T, for a small constant matrix M and a grid of arrays."""

    def weighted(weights, arrays):
        terms = zip(weights, arrays, strict=True)
        return reduce(operator.add, [x if w == 1 else w * x for w, x in terms if w])

    rows = [[weighted(weights, row) for weights in matrix] for row in grid]
    columns = list(zip(*rows, strict=True))
    return [[weighted(weights, column) for column in columns] for weights in matrix]


def _padded(images, padding):
    """Images with zeros around them, or cut where the padding is negative."""
    edges = ((0, 0), *padding, (0, 0))
    return lax.pad(images, jnp.zeros((), images.dtype), [(low, high, 0) for low, high in edges])


def _taps(images, taps, strides, size):
    """What each tap of a window meets as the window moves: taps[0] rows of taps[1] arrays [N,
    *size, C].
    """
    spans = [(count - 1) * stride + 1 for count, stride in zip(size, strides, strict=True)]
    count, _, _, channels = images.shape

    def tap(i, j):
        return lax.slice(
            images, (0, i, j, 0), (count, i + spans[0], j + spans[1], channels), (1, *strides, 1)
        )

    return [[tap(i, j) for j in range(taps[1])] for i in range(taps[0])]


def _matmul(pixels, matrix):
    """[N, H, W, K] by [K, F]. Two axes only: given more, XLA:CPU transposes in memory to get at its
    gradients.
    """
    rows = lax.dot(pixels.reshape(-1, pixels.shape[3]), matrix)
    return rows.reshape(*pixels.shape[:3], matrix.shape[1])


def _matmuls(pixels, matrices):
    """Several [N, H, W, K] by as many [K, F]: [pairs, N, H, W, F]. Half as long to compile as
    single matmuls.
    """
    stacked = jnp.stack([x.reshape(-1, x.shape[3]) for x in pixels])
    rows = lax.dot_general(stacked, jnp.stack(matrices), (((2,), (1,)), ((0,), (0,))))
    return rows.reshape(len(pixels), *pixels[0].shape[:3], rows.shape[2])
