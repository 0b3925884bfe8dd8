"""A convolution and its two gradients as XLA:CPU runs them best, chosen by shape.

What it runs badly when asked plainly (jaxlib 0.10): 1x1 kernels, maps smaller than the kernel, the
image gradient of a strided convolution, kernel gradients, and 64 channels. What it runs well still
takes fewer products by Winograd's algorithm. docs/speed_notes.md has the measurements behind the
choices.

Every function here is for one group and float32 or float64.
"""

import math

import jax.numpy as jnp

from resnet_jax.ops.formulations import (
    Geometry,
    direct,
    image_transpose,
    interleave,
    kernel_transpose,
    one_row_more,
    patches,
    pointwise,
    whole,
    winograd,
)

NO_PADDING = ((0, 0), (0, 0))
EIGEN_CHANNELS = range(33, 65)
WINOGRAD_CHANNELS = 32
# Multiply-adds in each of the 16 products; with less, what surrounds them outweighs them.
WINOGRAD_WORK = 10_000_000


def output(images, kernel, geometry):
    """The convolution: [N, H, W, C], [kh, kw, C, F] -> [N, H', W', F]."""
    geometry, live = live_taps(geometry)
    formulation = _formulation(geometry, (images.shape[0], *kernel.shape[2:]), kernel.dtype)
    return formulation(images, kernel[live], geometry)


def image_gradient(cotangent, kernel, geometry):
    """Its transpose in the images: [N, H', W', F], [kh, kw, C, F] -> [N, H, W, C].

    Where that is not one matmul, it is convolutions with stride 1, one for each way in which a
    pixel may lie between the strides. Their results interleave.
    """
    geometry, live = live_taps(geometry)
    kernel = kernel[live]
    formulation = _formulation(geometry, (cotangent.shape[0], *kernel.shape[2:]), kernel.dtype)
    if formulation in (pointwise, whole, patches):
        return image_transpose(formulation, cotangent, kernel, geometry)
    vertical, horizontal = geometry.strides
    phases = [
        [_phase(cotangent, kernel, geometry, (i, j)) for j in range(horizontal)]
        for i in range(vertical)
    ]
    if geometry.strides == (1, 1):
        return phases[0][0]
    return interleave(phases, geometry.image_size)


def kernel_gradient(images, cotangent, geometry):
    """Its transpose in the kernel: [N, H, W, C], [N, H', W', F] -> [kh, kw, C, F]."""
    trimmed, live = live_taps(geometry)
    sizes = images.shape[0], images.shape[3], cotangent.shape[3]
    formulation = _formulation(trimmed, sizes, images.dtype)
    if formulation is one_row_more:
        formulation = direct
    gradient = kernel_transpose(formulation, images, cotangent, trimmed)
    edges = [
        (cut.start, size - cut.stop) for cut, size in zip(live, geometry.kernel_size, strict=True)
    ]
    return jnp.pad(gradient, (*edges, (0, 0), (0, 0)))


def live_taps(geometry: Geometry) -> tuple[Geometry, tuple[slice, slice]]:
    """The same convolution without the kernel's outer rows and columns that only ever meet padding.

    Returns:
      The geometry of the smaller convolution, and the slices that cut its kernel out of the kernel.
    """
    cuts = []
    for image, kernel, stride, (before, _), output in zip(
        *geometry[:4], geometry.output_size, strict=True
    ):
        reach = [(tap - before, tap - before + (output - 1) * stride) for tap in range(kernel)]
        taps = [tap for tap, (first, last) in enumerate(reach) if first < image and last >= 0] or [
            0
        ]
        cuts.append((taps[0], kernel - 1 - taps[-1]))
    trimmed = geometry._replace(
        kernel_size=tuple(k - sum(cut) for k, cut in zip(geometry.kernel_size, cuts, strict=True)),
        padding=tuple(
            (p[0] - cut[0], p[1] - cut[1]) for p, cut in zip(geometry.padding, cuts, strict=True)
        ),
    )
    return trimmed, tuple(
        slice(cut[0], k - cut[1]) for k, cut in zip(geometry.kernel_size, cuts, strict=True)
    )


def _formulation(geometry, sizes, dtype):
    """The best formulation of the output; `sizes` are (N, C, F)."""
    if geometry.padding == NO_PADDING and geometry.kernel_size == (1, 1):
        return pointwise
    if geometry.padding == NO_PADDING and geometry.kernel_size == geometry.image_size:
        return whole
    height, width = geometry.image_size
    if min(height, width) < 3 or (height * width <= 16 and geometry.strides != (1, 1)):
        return patches
    if _suits_winograd(geometry, sizes):
        return winograd
    if max(sizes[1:]) not in EIGEN_CHANNELS or dtype != jnp.float32 or geometry.strides != (1, 1):
        return direct
    return one_row_more if geometry.output_size == geometry.image_size else direct


def _suits_winograd(geometry, sizes):
    count, *channels = sizes
    if (
        geometry.kernel_size != (3, 3)
        or geometry.strides != (1, 1)
        or min(channels) < WINOGRAD_CHANNELS
    ):
        return False
    tiles = [-(-size // 2) for size in geometry.output_size]
    # `jax.export` may leave the number of images open.
    return isinstance(count, int) and math.prod((*sizes, *tiles)) >= WINOGRAD_WORK


def _phase(cotangent, kernel, geometry, phase):
    """Every stride-th pixel of the image gradient from `phase` on: [N, ceil(H / stride), ceil(W /
    stride), C].

    Pixel stride * i + phase meets the taps first, first + stride, ..., congruent to phase +
    padding; tap number m of these comes from output pixel i + skipped - m.
    """
    taps, padding, sizes = [], [], []
    for axis in (0, 1):
        stride, (before, _) = geometry.strides[axis], geometry.padding[axis]
        skipped, first = divmod(phase[axis] + before, stride)
        count = len(range(first, geometry.kernel_size[axis], stride))
        taps.append(slice(first, None, stride))
        sizes.append(-(-geometry.image_size[axis] // stride))
        padding.append((count - 1 - skipped, sizes[axis] + skipped - geometry.output_size[axis]))
    part = jnp.swapaxes(kernel[tuple(taps)][::-1, ::-1], 2, 3)
    if 0 in part.shape[:2]:
        return jnp.zeros((cotangent.shape[0], *sizes, part.shape[3]), cotangent.dtype)
    return output(
        cotangent, part, Geometry(geometry.output_size, part.shape[:2], (1, 1), tuple(padding), 1)
    )
