"""The 2-D convolution that every network here is made of."""

import jax
from jax import lax


def conv2d(
    images: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    groups: int = 1,
) -> jax.Array:
    """Convolves images with a kernel, channels last, without a bias.

    Args:
      images: [N, H, W, C].
      kernel: [kh, kw, C / groups, F], in the dtype of `images`.
      strides: step between outputs, in pixels (vertical, horizontal).
      padding: zeros added (before, after) in each of the two directions.
      groups: number of independent channel groups; divides C and F.

    Returns:
      [N, H', W', F] in the dtype of `images`.
    """
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
