"""Augmentations of one image on the device, each a pure function of its key.

Images are [H, W, C]; `jax.vmap` maps them over a batch. Draws are always 32-bit, so that they are
the same whether or not 64-bit arithmetic is on.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Key, Shaped, UInt8


def normalise(
    images: "UInt8[jax.Array, '*n c']",
    mean: "Float[np.ndarray, ' c']",
    std: "Float[np.ndarray, ' c']",
    dtype: Any,
) -> "Float[jax.Array, '*n c']":
    """Returns (images / 255 - mean) / std.

    Args:
      images: values 0..255.
      mean, std: of pixels in 0..1.
      dtype: of the result.
    """
    return (images.astype(dtype) - jnp.asarray(255 * mean, dtype)) * jnp.asarray(
        1 / (255 * std), dtype
    )


def random_flip(
    key: "Key[jax.Array, '']", image: "Shaped[jax.Array, 'h w c']"
) -> "Shaped[jax.Array, 'h w c']":
    """Mirrors the image left to right with probability one half."""
    return jnp.where(jax.random.bits(key, (), np.uint32) >> 31 == 1, image[:, ::-1], image)


def alternating_flip(
    key: "Key[jax.Array, '']", image: "Shaped[jax.Array, 'h w c']", epoch: "Int[jax.Array, '']"
) -> "Shaped[jax.Array, 'h w c']":
    """Mirrors the image in every second epoch (Jordan 2024, arXiv 2404.00498).

    Args:
      key: what the first epoch's flip is a pure function of, the same in every epoch.
      epoch: from 0; in epoch 0 the image is as `random_flip` makes it.
    """
    return random_flip(key, jnp.where(epoch % 2 == 1, image[:, ::-1], image))


def pad_and_crop(
    key: "Key[jax.Array, '']", image: "Shaped[jax.Array, 'h w c']", pixels: int
) -> "Shaped[jax.Array, 'h w c']":
    """Adds `pixels` of black on each side and cuts out the original size at a random place.

    He et al. 2015, section 4.2, for CIFAR with `pixels` = 4.
    """
    top, left = _whole(key, 2, 2 * pixels + 1)
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    return jax.lax.dynamic_slice(padded, (top, left, np.int32(0)), image.shape)


def random_erasing(
    key: "Key[jax.Array, '']",
    image: "Float[jax.Array, 'h w c']",
    probability: float,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    fill: str,
) -> "Float[jax.Array, 'h w c']":
    """Overwrites a random rectangle of a normalised image (Zhong et al. 2017, algorithm 1).

    The area is uniform in `scale` times the image's, the logarithm of height over width uniform in
    that of `ratio`; of ten rectangles the first that fits is taken, and if none does the image
    stays.

    Args:
      key: what the draw is a pure function of.
      probability: that anything is erased.
      scale, ratio: (lowest, highest).
      fill: "zero", the mean colour after normalising, or "noise", a standard normal draw per value.
    """
    height, width, _ = image.shape
    draw_key, noise_key = jax.random.split(key)
    draws = jax.random.uniform(draw_key, (41,), np.float32)
    area, shape, down, right = draws[:40].reshape(4, 10)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    shape = jnp.exp(np.float32(np.log(ratio[0])) + np.float32(np.log(ratio[1] / ratio[0])) * shape)
    rows = jnp.round(jnp.sqrt(area * shape)).astype(np.int32)
    columns = jnp.round(jnp.sqrt(area / shape)).astype(np.int32)
    fits = (rows > 0) & (columns > 0) & (rows < height) & (columns < width)
    first = jnp.argmax(fits)
    rows, columns = rows[first], columns[first]
    top = jnp.floor(down[first] * (height - rows + 1)).astype(np.int32)
    left = jnp.floor(right[first] * (width - columns + 1)).astype(np.int32)
    erased = rectangle(height, width, top, left, top + rows, left + columns)
    erased &= fits[first] & (draws[40] < probability)
    value = (
        jax.random.normal(noise_key, image.shape, np.float32).astype(image.dtype)
        if fill == "noise"
        else 0
    )
    return jnp.where(erased[..., None], value, image)


def rectangle(height: int, width: int, top, left, bottom, right) -> jax.Array:
    """Returns bool [height, width], True for top <= row < bottom and left <= column < right."""
    row, column = jnp.arange(height, dtype=np.int32), jnp.arange(width, dtype=np.int32)
    return ((row >= top) & (row < bottom))[:, None] & ((column >= left) & (column < right))[None, :]


def _whole(key: jax.Array, count: int, below: int) -> jax.Array:
    return jax.random.randint(key, (count,), 0, below, np.int32)
