"""The ways in which a convolution and its two gradients may be written for XLA, and the CPU's choice among them.

A formulation is a function of images [N, H, W, C], a kernel [kh, kw, C / groups, F] and a `Geometry` that returns
[N, H', W', F], linear in each array. All compute the same sums of products; they differ in the order of the additions
and in how well XLA:CPU runs them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax


class Geometry(NamedTuple):
    """The sizes that tie images, kernel and output together; pairs are (vertical, horizontal), in pixels."""

    image_size: tuple[int, int]
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    groups: int

    @property
    def output_size(self) -> tuple[int, int]:
        sizes = zip(self.image_size, self.kernel_size, self.strides, self.padding, strict=True)
        return tuple(
            (image + sum(padding) - kernel) // stride + 1 for image, kernel, stride, padding in sizes
        )


def direct(images, kernel, geometry):
    """XLA's own convolution: the plain formulation that the others must agree with."""
    return lax.conv_general_dilated(
        images,
        kernel,
        geometry.strides,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def pointwise(images, kernel, geometry):
    """A 1x1 kernel without padding: one matmul over the pixels that the strides keep."""
    vertical, horizontal = geometry.strides
    return _matmul(images[:, ::vertical, ::horizontal], kernel[0, 0])


def patches(images, kernel, geometry):
    """Every output pixel's window side by side ([N, H', W', kh * kw * C]), then one matmul."""
    kh, kw, channels, features = kernel.shape
    padded = jnp.pad(images, ((0, 0), *geometry.padding, (0, 0)))
    windows = [_window(padded, i, j, geometry) for i in range(kh) for j in range(kw)]
    return _matmul(lax.concatenate(windows, 3), kernel.reshape(kh * kw * channels, features))


def dense(images, kernel, geometry):
    """A tiny map as one fully connected layer, [N, H * W * C] by [H * W * C, H' * W' * F].

    Where an output pixel does not see an input pixel the matrix holds zeros; on the maps this is meant for, few do.
    """
    (height, width), (out_height, out_width) = geometry.image_size, geometry.output_size
    *_, channels, features = kernel.shape
    rows = []
    for y in range(height):
        for x in range(width):
            taps = [_tap(kernel, y, x, i, j, geometry) for i in range(out_height) for j in range(out_width)]
            rows.append(lax.concatenate(taps, 1))
    matrix = lax.concatenate(rows, 0)
    output = images.reshape(images.shape[0], height * width * channels) @ matrix
    return output.reshape(images.shape[0], out_height, out_width, features)


def _matmul(pixels, matrix):
    """[N, H, W, K] by [K, F]. Two axes only: given more, XLA:CPU transposes in memory to get at its gradients."""
    rows = lax.dot(pixels.reshape(-1, pixels.shape[3]), matrix)
    return rows.reshape(*pixels.shape[:3], matrix.shape[1])


def _window(padded, i, j, geometry):
    """The pixels under tap (i, j) of the kernel for every output pixel: [N, H', W', C]."""
    (vertical, horizontal), (height, width) = geometry.strides, geometry.output_size
    stop = (
        padded.shape[0],
        i + (height - 1) * vertical + 1,
        j + (width - 1) * horizontal + 1,
        padded.shape[3],
    )
    return lax.slice(padded, (0, i, j, 0), stop, (1, vertical, horizontal, 1))


def _tap(kernel, y, x, i, j, geometry):
    """The matrix [C, F] by which input pixel (y, x) reaches output pixel (i, j); zeros where it does not."""
    (vertical, horizontal), ((top, _), (left, _)) = geometry.strides, geometry.padding
    row, column = y + top - i * vertical, x + left - j * horizontal
    if 0 <= row < kernel.shape[0] and 0 <= column < kernel.shape[1]:
        return kernel[row, column]
    return jnp.zeros(kernel.shape[2:], kernel.dtype)


def choose(geometry: Geometry, dtype):
    """The formulation of the output, of the image gradient and of the kernel gradient that suits XLA:CPU."""
    if geometry.groups > 1 or not jnp.issubdtype(dtype, jnp.floating):
        return direct
    height, width = geometry.image_size
    if geometry.kernel_size == (1, 1) and geometry.padding == ((0, 0), (0, 0)):
        return pointwise
    if height * width <= 4:
        return dense
    if height * width <= 16 and geometry.strides != (1, 1):
        return patches
    return direct


def cpu(images, kernel, geometry):
    """The convolution in the formulation chosen for the CPU."""
    geometry, live = live_taps(geometry)
    return choose(geometry, images.dtype)(images, kernel[live], geometry)


def live_taps(geometry: Geometry) -> tuple[Geometry, tuple[slice, slice]]:
    """The same convolution without the kernel's outer rows and columns that only ever meet padding.

    Returns:
      The geometry of the smaller convolution, and the slices that cut its kernel out of the kernel.
    """
    cuts = []
    for image, kernel, stride, (before, _), output in zip(*geometry[:4], geometry.output_size, strict=True):
        reach = [(tap - before, tap - before + (output - 1) * stride) for tap in range(kernel)]
        taps = [tap for tap, (first, last) in enumerate(reach) if first < image and last >= 0] or [0]
        cuts.append((taps[0], kernel - 1 - taps[-1]))
    trimmed = geometry._replace(
        kernel_size=tuple(k - sum(cut) for k, cut in zip(geometry.kernel_size, cuts, strict=True)),
        padding=tuple((p[0] - cut[0], p[1] - cut[1]) for p, cut in zip(geometry.padding, cuts, strict=True)),
    )
    return trimmed, tuple(
        slice(cut[0], k - cut[1]) for k, cut in zip(geometry.kernel_size, cuts, strict=True)
    )
