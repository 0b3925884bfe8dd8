"""The 2-D convolution that every network here is made of.

Every platform runs XLA's own, except the CPU, where `cpu_conv2d` has other formulations for the
shapes that XLA:CPU runs badly. They are plain functions of the two arrays: JAX differentiates them.
"""

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from resnet_jax.ops.cpu_conv2d import Geometry, choose
from resnet_jax.ops.device_sums import convolve_rounded

if TYPE_CHECKING:
    from jaxtyping import Float


def conv2d(
    images: "Float[jax.Array, 'n h w c']",
    kernel: "Float[jax.Array, 'kh kw c_group f']",
    *,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    dilation: int = 1,
    groups: int = 1,
) -> "Float[jax.Array, 'n h_out w_out f']":
    """Convolves images with a kernel, channels last, without a bias.

    Differentiable to any order in forward and reverse mode, and good under `vmap`, `shard_map` and
    `jax.export`.

    Args:
      images: channels last.
      kernel: c_group is c / groups; rounded to the dtype of `images`. Its gradient has the
        kernel's dtype, and is added over devices in it (see `device_sums`).
      strides: step between outputs, in pixels (vertical, horizontal).
      padding: zeros added (before, after) in each of the two directions.
      dilation: step between the kernel's taps, in pixels.
      groups: number of independent channel groups; divides C and F.

    Returns:
      The sums, in the dtype of `images`.
    """
    (_, height, width, _), (rows, columns, _, _) = images.shape, kernel.shape
    geometry = Geometry((height, width), (rows, columns), strides, padding)
    plain = partial(
        lax.conv_general_dilated,
        window_strides=geometry.strides,
        padding=geometry.padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    covered = (
        dilation == groups == 1
        and jnp.issubdtype(images.dtype, jnp.floating)
        # `jax.export` may leave height and width open.
        and all(isinstance(size, int) for size in geometry.image_size)
        and min(geometry.output_size) > 0
    )

    def convolve(images, kernel):
        if not covered:
            return plain(images, kernel)
        fast = partial(_widened, choose(geometry, images.shape[0], *kernel.shape[2:]) or plain)
        return lax.platform_dependent(images, kernel, cpu=fast, default=plain)

    return convolve_rounded(convolve, images, kernel)


def _widened(convolve, images, kernel):
    """Computes half precision in single and rounds once; XLA:CPU is no faster in it.

    The backward pass makes what lies between from the arrays again: by Winograd's algorithm that is
    four times the map.
    """
    wide = jnp.promote_types(images.dtype, jnp.float32)
    result = jax.checkpoint(convolve)(images.astype(wide), kernel.astype(wide))
    return result.astype(images.dtype)
