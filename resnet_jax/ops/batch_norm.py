"""Normalisation by batch statistics: the function that `layers.BatchNorm` applies, and its
derivative.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Float


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5, 6))
def batch_normalize(
    x: "Float[jax.Array, 'n h w c']",
    scale: "Float[jax.Array, ' c']",
    bias: "Float[jax.Array, ' c']",
    about: "Float[jax.Array, ' c']",
    groups: int,
    epsilon: float,
    axis_name: str | Sequence[str] | None,
) -> (
    "tuple[Float[jax.Array, 'n h w c'], Float[jax.Array, 'groups c'], Float[jax.Array, 'groups c']]"
):
    """Returns (x - mean) / sqrt(var + epsilon) * scale + bias, mean and biased var.

    The derivative is that of Ioffe and Szegedy 2015, section 3, with the sums gathered: the
    gradient of x needs the same two sums over positions that are the gradients of scale and bias,
    and one more reading of x.

    Args:
      x: n is a multiple of `groups`, and a group is a run of consecutive images.
      about: roughly the mean: the variance is taken about it. The result does not depend on
        it.
      groups: parts of the batch that have statistics of their own.
      epsilon: added to the variance.
      axis_name: the mapped axis, if any, over which statistics are averaged as well.
    """
    images = x.shape[0]
    mean, var = _moments(x, about, groups, axis_name)
    factor = lax.rsqrt(_per_image(var, images) + epsilon) * scale
    return (x - _per_image(mean, images)) * factor + bias, mean, var


@batch_normalize.defjvp
def _batch_normalize_jvp(groups, epsilon, axis_name, primals, tangents):
    x, scale, bias, about = primals
    dx, dscale, dbias, _ = tangents
    y, mean, var = batch_normalize(x, scale, bias, about, groups, epsilon, axis_name)
    images = x.shape[0]
    inverse = lax.rsqrt(var + epsilon)
    normal = (x - _per_image(mean, images)) * _per_image(inverse, images)
    dmean = _group_mean(jnp.mean(dx, (1, 2)), groups, axis_name)
    along = _group_mean(jnp.mean(dx * normal, (1, 2)), groups, axis_name)
    # One factor each for dx, x and 1: its transpose sums over positions twice, and over products
    # of maps that are in memory already, where XLA:CPU would write `normal` out first.
    slope = inverse * scale
    per_x = inverse * (dscale - slope * along)
    per_one = dbias - slope * dmean - mean * per_x
    dy = (
        _per_image(slope, images) * dx + x * _per_image(per_x, images) + _per_image(per_one, images)
    )
    return (y, mean, var), (dy, dmean, 2 * along / inverse)


def _moments(x: jax.Array, about: jax.Array, groups: int, axis_name) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance [groups, C] in one reading of x [N, H, W, C]."""
    moments = lax.platform_dependent(x, about, cpu=_moments_about_pixel, default=_moments_about)
    first, second = jnp.split(_group_mean(moments, groups, axis_name), 2, 1)
    return first + about, jnp.maximum(second - first * first, 0)


def _moments_about(x: jax.Array, about: jax.Array) -> jax.Array:
    """Each image's first and second moment about `about`, side by side: [N, 2 C].

    Sums of the map itself, which a TPU's convolution takes while it writes the map.
    """
    offset = x - about
    return jnp.concatenate([jnp.mean(offset, (1, 2)), jnp.mean(offset * offset, (1, 2))], 1)


def _moments_about_pixel(x: jax.Array, about: jax.Array) -> jax.Array:
    """The same, by way of the moments about each image's own central pixel."""
    pixel = x[:, x.shape[1] // 2, x.shape[2] // 2]
    offset = x - pixel[:, None, None]
    first, second = jnp.mean(offset, (1, 2)), jnp.mean(offset * offset, (1, 2))
    from_about = first + (pixel - about)
    return jnp.concatenate([from_about, (second - first * first) + from_about * from_about], 1)


def _group_mean(values: jax.Array, groups: int, axis_name) -> jax.Array:
    """Averages [N, C] over the images of each group, and over the mapped axis: [groups, C]."""
    mean = jnp.mean(values.reshape(groups, -1, values.shape[1]), 1)
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _per_image(values: jax.Array, images: int) -> jax.Array:
    """Gives every image the values of its group: [groups, C] -> [N, 1, 1, C]."""
    return jnp.repeat(values, images // values.shape[0], 0)[:, None, None]
