"""Pools: means over a map, strides that smooth, and BiT's maximum."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from resnet_jax.ops.max_pool import max_pool

if TYPE_CHECKING:
    from jaxtyping import Float


def global_mean(x: "Float[jax.Array, 'n h w c']") -> "Float[jax.Array, 'n c']":
    """Returns the mean over positions, taken in float32 or better."""
    return jnp.mean(x, (1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))


def _adding_in_float32(pool: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Makes a pool add in float32 or better; the map that it returns has the type of its own."""

    @functools.wraps(pool)
    def pool_widened(x: jax.Array, *arguments: Any) -> jax.Array:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        # Flax divides by counts in the default type, which alone would widen a narrow map.
        return pool(wide, *arguments).astype(x.dtype)

    return pool_widened


@_adding_in_float32
def average_pool(
    x: "Float[jax.Array, 'n h w c']", stride: int
) -> "Float[jax.Array, 'n h_out w_out c']":
    """Averages windows of `stride` x `stride`.

    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), C]. A window that reaches past the edge
    averages the pixels it has, which is PyTorch's `ceil_mode=True, count_include_pad=False` and
    what timm's D shortcut does.
    """
    # A size that `jax.export` leaves open gets all the padding that any size may need: the count of
    # windows stays the same. (Flax's annotation knows its names of paddings only.)
    padding: Any = tuple(
        (0, -size % stride if isinstance(size, int) else stride - 1) for size in x.shape[1:3]
    )
    return nn.avg_pool(x, (stride, stride), (stride, stride), padding, count_include_pad=False)


@_adding_in_float32
def average_ahead(x: "Float[jax.Array, 'n h w c']") -> "Float[jax.Array, 'n h w c']":
    """Averages each pixel with the next ones, zeros beyond the edge.

    What becomes of D's 2x2 pool, as timm has it, where a dilation takes the place of its stride.
    """
    padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    rows = padded[:, :-1] + padded[:, 1:]
    return (rows[:, :, :-1] + rows[:, :, 1:]) / 4


@_adding_in_float32
def blur(x: "Float[jax.Array, 'n h w c']", stride: int) -> "Float[jax.Array, 'n h_out w_out c']":
    """Smooths by (1, 2, 1) / 4 both ways, edges reflected, and takes every stride-th pixel.

    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), C]; Zhang 2019, "Making Convolutional
    Networks Shift-Invariant Again", section 3.2.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        edges = [lax.slice_in_dim(x, at, at + 1, axis=axis) for at in (1, size - 2)]
        padded = jnp.concatenate([edges[0], x, edges[1]], axis)
        before, here, after = (
            lax.slice_in_dim(padded, at, at + size, stride, axis) for at in range(3)
        )
        x = (before + 2 * here + after) / 4
    return x


def max_pool_zeros(x: "Float[jax.Array, 'n h w c']") -> "Float[jax.Array, 'n h_out w_out c']":
    """Pools as `max_pool`, but with zeros round the map: BiT's stem, whose map has both signs."""
    pooled = max_pool(x)
    for axis in (1, 2):
        centre = 2 * lax.broadcasted_iota(jnp.int32, pooled.shape, axis)
        at_edge = (centre == 0) | (centre + 1 >= x.shape[axis])
        pooled = jnp.where(at_edge, jnp.maximum(pooled, 0), pooled)
    return pooled


ANTI_ALIAS: Mapping[str, Callable[..., jax.Array]] = {"average": average_pool, "blur": blur}
