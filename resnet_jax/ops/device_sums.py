"""Sums over devices of a kernel's gradient, in the dtype of the parameter."""

from collections.abc import Callable

import jax
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

Convolve = Callable[[jax.Array, jax.Array], jax.Array]


def convolve_rounded(convolve: Convolve, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns convolve(images, kernel), the kernel rounded to the images' dtype first.

    Where a batch is split over a mesh, each device has its own part of the kernel's gradient, in
    the images' dtype, and the parts are added in the kernel's. The compiler alone would add what
    the convolutions put out: bfloat16, whose rounding grows with the number of devices.

    That takes a mesh with one axis of more than one device, of type Auto, that `jax.set_mesh` (or
    `jax.sharding.use_abstract_mesh`) has put in force and that divides the batch. Elsewhere, under
    the caller's own `shard_map` for one, the kernel is rounded and nothing else.

    Args:
      convolve: (images [N, ...], kernel) -> [N, ...], every output of its own image alone.
      images: [N, ...].
      kernel: its dtype is that of its gradient.
    """

    def rounded(images, kernel):
        return convolve(images, kernel.astype(images.dtype))

    axis = None if images.dtype == kernel.dtype else _batch_axis(images.shape[0])
    if axis is None:
        return rounded(images, kernel)

    def part(images, kernel):
        # The transpose of `pcast` is the sum over the axis: before the rounding here is after it
        # in the gradient.
        return rounded(images, lax.pcast(kernel, axis, to="varying"))

    return jax.shard_map(part, in_specs=(P(axis), P()), out_specs=P(axis))(images, kernel)


def _batch_axis(images: int) -> str | None:
    """Returns the mesh's only axis of more than one device, if the compiler may split over it."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = [
        (name, size, kind)
        for (name, size), kind in zip(mesh.shape.items(), mesh.axis_types, strict=True)
        if size > 1
    ]
    if len(axes) != 1:
        return None
    name, size, kind = axes[0]
    return name if kind == AxisType.Auto and images % size == 0 else None
