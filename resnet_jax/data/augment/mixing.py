"""Mixup and CutMix on the device, between neighbours of the batch."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment.transforms import rectangle

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Key, Shaped


def mix(
    keys: "Key[jax.Array, ' n']",
    images: "Float[jax.Array, 'n h w c']",
    targets: "Float[jax.Array, 'n k']",
    mask: "Bool[jax.Array, ' n']",
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float,
    cutmix_share: float,
) -> "tuple[Float[jax.Array, 'n h w c'], Float[jax.Array, 'n k']]":
    """Mixes each image with its neighbour in the batch, by mixup or CutMix, each with its own
    share.

    The neighbour of row 2k is row 2k + 1 and the other way round: the batch is a random draw
    already, and where each device's share of it is even no pair spans two devices. An example whose
    partner is masked stays as it is.

    Args:
      keys: one a row.
      images: an even number.
      targets: rows that sum to one.
      mask: False for rows that are no example.
      mixup_alpha: of Beta(alpha, alpha), from which the share is drawn (Zhang et al. 2017); 0: no
        mixup.
      cutmix_alpha: the same for CutMix (Yun et al. 2019); 0: no CutMix.
      probability: that a row is mixed at all.
      cutmix_share: with both alphas positive, the probability that it is CutMix.

    Returns:
      (images, targets); a target's weights are the shares of the pixels, in float32 or wider
      whatever the targets are in.
    """
    _, height, width, _ = images.shape
    touched, cuts, kept, boxes = jax.vmap(
        lambda key: _draw(key, height, width, mixup_alpha, cutmix_alpha, probability, cutmix_share)
    )(keys)
    touched &= mask & neighbours(mask)
    share = jnp.where(touched, kept, 1)
    other = neighbours(images)
    wide = share[:, None, None, None].astype(jnp.promote_types(images.dtype, jnp.float32))
    # Not share * (image - other) + other: at share 1 the image must come out to the bit.
    blended = (wide * images + (1 - wide) * other).astype(images.dtype)
    pasted = jnp.where(boxes[..., None], other, images)
    images = jnp.where((touched & cuts)[:, None, None, None], pasted, blended)
    share = share[:, None].astype(jnp.promote_types(targets.dtype, jnp.float32))
    return images, share * targets + (1 - share) * neighbours(targets)


def neighbours(rows: "Shaped[jax.Array, 'n ...']") -> "Shaped[jax.Array, 'n ...']":
    """Returns `rows` with rows 2k and 2k + 1 exchanged; N is even."""
    pairs = rows.reshape(rows.shape[0] // 2, 2, *rows.shape[1:])
    return pairs[:, ::-1].reshape(rows.shape)


def symmetric_beta(angle: jax.Array, radius: jax.Array, alpha: jax.Array) -> jax.Array:
    """Returns a draw of Beta(alpha, alpha) from two uniform ones, in closed form, so that it
    compiles at once.

    With T Student's t of 2 alpha degrees of freedom, 1/2 + T / (2 sqrt(2 alpha + T^2)) is
    Beta(alpha, alpha), and Bailey 1994 (Polar generation of random variates with the
    t-distribution) draws T as sqrt(2 alpha (radius^(-1 / alpha) - 1)) cos(2 pi angle).

    Args:
      angle, radius: uniform in [0, 1), independent of each other.
      alpha: above 0.
    """
    cosine = jnp.cos(2 * np.float32(np.pi) * angle)
    # At the ends of `radius` this is 0 or infinite, and the quotient below is right at both.
    spread = 1 / jnp.expm1(-jnp.log(radius) / alpha)
    share = 0.5 + 0.5 * cosine / jnp.sqrt(spread + cosine * cosine)
    return jnp.clip(
        share, 0, 1
    )  # XLA may take the root's reciprocal, whose rounding leads outside.


def _draw(key, height, width, mixup_alpha, cutmix_alpha, probability, cutmix_share):
    touch, choose, down, right, angle, radius = jax.random.uniform(key, (6,), np.float32)
    if mixup_alpha and cutmix_alpha:
        cuts = choose < cutmix_share
    else:
        cuts = jnp.asarray(cutmix_alpha > 0)
    kept = symmetric_beta(
        angle, radius, jnp.where(cuts, np.float32(cutmix_alpha), np.float32(mixup_alpha))
    )
    box, outside = _box(height, width, kept, down, right)
    return touch < probability, cuts, jnp.where(cuts, outside, kept), box


def _box(height: int, width: int, kept, down, right) -> tuple[jax.Array, jax.Array]:
    """Returns CutMix's rectangle, clipped at the border, and the share of pixels outside it."""
    side = jnp.sqrt(1 - kept)
    rows, columns = (jnp.floor(extent * side).astype(np.int32) for extent in (height, width))
    middle_row, middle_column = (
        jnp.floor(u * n).astype(np.int32) for u, n in ((down, height), (right, width))
    )
    top, left = jnp.maximum(middle_row - rows // 2, 0), jnp.maximum(middle_column - columns // 2, 0)
    bottom, right = (
        jnp.minimum(middle_row + rows // 2, height),
        jnp.minimum(middle_column + columns // 2, width),
    )
    cut = ((bottom - top) * (right - left)).astype(np.float32) / (height * width)
    return rectangle(height, width, top, left, bottom, right), 1 - cut
