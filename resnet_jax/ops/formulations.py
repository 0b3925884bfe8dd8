"""Ways to write a convolution for XLA, and the transposes of any of them.

A formulation is a function of images [N, H, W, C], a kernel [kh, kw, C / groups, F] and a
`Geometry` that returns [N, H', W', F], linear in each array. All are equal in exact arithmetic;
they differ in rounding and in what XLA makes of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Geometry(NamedTuple):
    """The sizes that tie images, kernel and output together; pairs are (vertical, horizontal), in
    pixels.
    """

    image_size: tuple[int, int]
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    groups: int

    @property
    def output_size(self) -> tuple[int, int]:
        sizes = zip(self.image_size, self.kernel_size, self.strides, self.padding, strict=True)
        return tuple(
            (image + sum(pad) - kernel) // stride + 1 for image, kernel, stride, pad in sizes
        )


def direct(images, kernel, geometry):
    """XLA's own convolution: what the others must agree with."""
    return lax.conv_general_dilated(
        images,
        kernel,
        geometry.strides,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def one_row_more(images, kernel, geometry):
    """XLA's own convolution of a padding that keeps the size, and one row more of it, which is
    dropped.

    XLA:CPU (jaxlib 0.10) gives a convolution whose output is no larger than its images to YNNPACK
    and any other to Eigen, which is half as fast again with 64 channels. Strides of one only.
    """
    (top, bottom), sides = geometry.padding
    taller = geometry._replace(padding=((top, bottom + 1), sides))
    return direct(images, kernel, taller)[:, :-1]


def pointwise(images, kernel, geometry):
    """A 1x1 kernel without padding: one matmul over the pixels that the strides keep."""
    vertical, horizontal = geometry.strides
    return _matmul(images[:, ::vertical, ::horizontal], kernel[0, 0])


def patches(images, kernel, geometry):
    """Every output pixel's window side by side, [N, H', W', kh * kw * C], then one matmul."""
    padded = _padded(images, geometry.padding)
    grid = _taps(padded, geometry.kernel_size, geometry.strides, geometry.output_size)
    windows = [tap for row in grid for tap in row]
    columns = windows[0] if len(windows) == 1 else lax.concatenate(windows, 3)
    return _matmul(columns, kernel.reshape(-1, kernel.shape[3]))


def winograd(images, kernel, geometry):
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
    values = _both_ways(_transformed_pixels, pixels)
    weights = _both_ways(_transformed_taps, [[kernel[i, j] for j in range(3)] for i in range(3)])
    products = [_matmuls(*rows) for rows in zip(values, weights, strict=True)]
    outputs = _both_ways(_transformed_products, products)
    return lax.optimization_barrier(interleave(outputs, geometry.output_size))


def _transformed_pixels(d):
    """The paper's B^T d."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _transformed_taps(g):
    """The paper's G g."""
    outer, inner = (g[0] + g[2]) / 2, g[1] / 2
    return g[0], outer + inner, outer - inner, g[2]


def _transformed_products(m):
    """The paper's A^T m."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _both_ways(transform, grid):
    """Applies a transform of a sequence of arrays to every row of a grid, then to every column."""
    rows = [transform(row) for row in grid]
    columns = [transform(column) for column in zip(*rows, strict=True)]
    return list(zip(*columns, strict=True))


def whole(images, kernel, geometry):
    """A kernel as large as the map, without padding: a fully connected layer."""
    del geometry
    return _matmul(images.reshape(images.shape[0], 1, 1, -1), kernel.reshape(-1, kernel.shape[3]))


def _padded(images, padding):
    """Images with zeros around them, or cut where the padding is negative."""
    edges = ((0, 0), *padding, (0, 0))
    return lax.pad(images, jnp.zeros((), images.dtype), [(*edge, 0) for edge in edges])


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


def interleave(phases, size):
    """Puts phases[a][b], [N, h, w, C], at rows a, a + len(phases), ... and columns b, b +
    len(phases[0]), ...

    Returns:
      [N, *size, C].
    """
    grid = jnp.stack([jnp.stack(row, 3) for row in phases], 2)
    images, rows, vertical, columns, horizontal, channels = grid.shape
    return grid.reshape(images, rows * vertical, columns * horizontal, channels)[
        :, : size[0], : size[1]
    ]


def image_transpose(formulation, cotangent, kernel, geometry):
    """The transpose of a formulation in its images: [N, H', W', F], [kh, kw, C / groups, F] -> [N,
    H, W, C].
    """
    shape = (cotangent.shape[0], *geometry.image_size, kernel.shape[2] * geometry.groups)
    images = _like(cotangent, shape)
    return jax.linear_transpose(lambda x: formulation(x, kernel, geometry), images)(cotangent)[0]


def kernel_transpose(formulation, images, cotangent, geometry):
    """The transpose of a formulation in its kernel: [N, H, W, C], [N, H', W', F] -> [kh, kw, C /
    groups, F].
    """
    shape = (*geometry.kernel_size, images.shape[3] // geometry.groups, cotangent.shape[3])
    kernel = _like(images, shape)
    return jax.linear_transpose(lambda w: formulation(images, w, geometry), kernel)(cotangent)[0]


def _like(array, shape):
    """The type of an array of another shape that varies over the same mesh axes as `array`.

    Were it to vary over none, under `shard_map` its transpose would sum over the devices, which the
    caller does.
    """
    return jax.typeof(array).update(shape=shape, weak_type=False)
