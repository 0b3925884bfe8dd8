"""Encoded files, on the host, one at a time: bytes in, uint8 pixels of the asked size out.

Every resize is Pillow's bilinear filter with antialiasing (the filter's support grows with the reduction), as
torchvision's transforms use it.
"""

import io
import os
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from resnet_jax.data import geometry
from resnet_jax.errors import UserError

# Above this Pillow itself speaks of a decompression bomb.
_MOST_PIXELS = 178_956_970

Draw = Callable[[int, int], tuple[int, int, int, int]]


class CorruptImageError(UserError):
    """An encoded image that nothing here can read; its message names file and record."""


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def whole(encoded: bytes | np.ndarray, shape: tuple[int, int, int], where: str) -> np.ndarray:
    """Decodes an image whose shape is known.

    Args:
      encoded: a file's bytes, or the pixels themselves.
      shape: (H, W, C) with C 1 or 3.
      where: the file and record, for the message.

    Returns:
      uint8 [H, W, C].

    Raises:
      CorruptImageError: the bytes are no image, or one of another shape.
    """
    mode = "L" if shape[2] == 1 else "RGB"
    pixels = encoded if isinstance(encoded, np.ndarray) else _array(_open(encoded, mode, where))
    if pixels.shape != tuple(shape):
        raise CorruptImageError(f"{where}: image of shape {pixels.shape}, but its data set states {shape}")
    return pixels


def random_crop(encoded: bytes | np.ndarray, size: int, draw: Draw, where: str) -> np.ndarray:
    """Decodes the part of an image that `draw` chooses and resizes it.

    Args:
      encoded: a file's bytes, or uint8 [H, W, C].
      size: the side of the result, in pixels.
      draw: (height, width) -> (top, left, height, width) of the part.
      where: the file and record, for the message.

    Returns:
      uint8 [size, size, 3], or of the pixels' own channels where pixels were given.

    Raises:
      CorruptImageError: the bytes are no image.
    """
    image = _image(encoded, where)
    top, left, height, width = draw(image.height, image.width)
    box = (left, top, left + width, top + height)
    return _array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def centre_crop(encoded: bytes | np.ndarray, size: int, share: float, where: str) -> np.ndarray:
    """Decodes an image, brings its short side to size / share and cuts out the central square.

    Args:
      encoded: a file's bytes, or uint8 [H, W, C].
      size: the side of the result, in pixels.
      share: `config.data.eval_crop`; 224 / 0.875 resizes to 256, as the references do.
      where: the file and record, for the message.

    Returns:
      uint8 [size, size, 3], or of the pixels' own channels where pixels were given.

    Raises:
      CorruptImageError: the bytes are no image.
    """
    image = _image(encoded, where)
    short = max(size, round(size / share))
    height, width = geometry.resized_short_side(image.height, image.width, short)
    top, left = geometry.centre(height, width, size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return _array(resized.crop((left, top, left + size, top + size)))


def _image(encoded: bytes | np.ndarray, where: str) -> Image.Image:
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded[..., 0] if encoded.shape[-1] == 1 else encoded)
    return _open(encoded, "RGB", where)


def _open(encoded: bytes, mode: str, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded))
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        return ImageOps.exif_transpose(image).convert(mode)
    # Pillow's decoders raise many kinds for broken bytes (OSError, SyntaxError, ValueError, struct.error,
    # ...).
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CorruptImageError(
            f"{where}: no readable image ({reason}); replace it, or set data.on_error='skip'"
        ) from error


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
