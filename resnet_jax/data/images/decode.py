"""Encoded files, on the host, one at a time: bytes in, uint8 pixels of the asked size out.

JPEG goes through libjpeg-turbo; what that refuses, and every other format,
goes to Pillow, and what Pillow refuses is corrupt.
"""

import io
import os
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from resnet_jax.data.images import jpeg, resize
from resnet_jax.errors import UserError

# Pillow warns of a decompression bomb above this.
MOST_PIXELS = 89_478_485
# The `finest` to score at: the filter's antialiasing then outweighs the scaled DCT's.
FINEST_IN_SCORING = 2.0
_WIDE_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")

# (height, width) of an image -> the part to show.
Choice = Callable[[int, int], resize.Box]


class CorruptImageError(UserError):
    """An encoded image that nothing here can read; its message names file and record.

    Args:
      fault: the file, the record and what is wrong there, without the remedy.
    """

    def __init__(self, fault: str):
        super().__init__(
            f"{fault}; replace or remove it, or train with config.data.on_error='skip'"
        )
        self.fault = fault


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allow_pixels(most: int) -> None:
    """Lets Pillow open images of up to `most` pixels, in this whole process; it never lowers the
    limit.
    """
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most)


def whole(
    encoded: bytes | np.ndarray,
    shape: tuple[int, int, int],
    where: str,
    most_pixels: int = MOST_PIXELS,
) -> np.ndarray:
    """Decodes an image whose shape is known.

    Args:
      encoded: a file's bytes, or the pixels themselves.
      shape: (H, W, C) with C 1 or 3.
      where: the file and record, for the message.
      most_pixels: an image of more counts as corrupt.

    Returns:
      uint8 [H, W, C].

    Raises:
      CorruptImageError: the bytes are no image, or one of another shape.
    """
    mode = "L" if shape[2] == 1 else "RGB"
    if isinstance(encoded, np.ndarray):
        pixels = encoded
    else:
        pixels = _array(_open(encoded, mode, where, most_pixels))
    if pixels.shape != tuple(shape):
        raise CorruptImageError(
            f"{where}: image of shape {pixels.shape}, but its data set states {tuple(shape)}"
        )
    return pixels


def rgb(encoded: bytes, where: str) -> Image.Image:
    """Decodes an image whole, at its own size, to Pillow's mode RGB.

    Args:
      encoded: a file's bytes.
      where: the file and record, for the message.

    Raises:
      CorruptImageError: the bytes are no image.
    """
    head = _fast_header(encoded, MOST_PIXELS)
    pixels = jpeg.rows(encoded, head, head.height, 1) if head else None
    return _open(encoded, "RGB", where, MOST_PIXELS) if pixels is None else Image.fromarray(pixels)


def pixels_of(image: Image.Image, channels: int, where: str) -> np.ndarray:
    """Returns the pixels of an image of Pillow's, upright, as `part` would decode its file.

    Args:
      image: of any mode.
      channels: 3 for RGB, 1 for grey.
      where: what to call it in the message.

    Returns:
      uint8 [H, W, channels].

    Raises:
      CorruptImageError: its file cannot be read.
    """
    try:
        return _array(_upright(image, "L" if channels == 1 else "RGB"))
    except Exception as error:
        raise CorruptImageError(f"{where}: no readable image ({error})") from error


def part(encoded: bytes | np.ndarray, size: int, choose: Choice, where: str, **how) -> np.ndarray:
    """Decodes one part of an image, as `parts` does."""
    return parts(encoded, size, [choose], where, **how)[0]


def parts(
    encoded: bytes | np.ndarray,
    size: int,
    choices: Sequence[Choice],
    where: str,
    finest: float = 1.0,
    smooth_chroma: bool = True,
    channels: int = 3,
    most_pixels: int = MOST_PIXELS,
    interpolation: str = "bilinear",
) -> list[np.ndarray]:
    """Decodes the parts of an image that `choices` name and resizes each to a square.

    Args:
      encoded: a file's bytes, or uint8 [H, W, C].
      size: the side of the results, in pixels.
      choices: which parts to show; each comes out as it would alone, decoded once for all.
      where: the file and record, for the message.
      finest: JPEG may be decoded at half, a quarter or an eighth of its size (libjpeg's scaled
        inverse DCT) as long as the part stays at least `finest` times `size`.
      smooth_chroma: False lets JPEG's subsampled colour be repeated instead of interpolated, which
        is faster.
      channels: 3 for RGB, 1 for grey; of encoded images.
      most_pixels: an image of more counts as corrupt.
      interpolation: one of `resize.INTERPOLATIONS`.

    Returns:
      uint8 [size, size, channels] for each, or of the pixels' own channels where pixels were given.

    Raises:
      CorruptImageError: the bytes are no image.
    """
    if not isinstance(encoded, np.ndarray):
        head = _fast_header(encoded, most_pixels) if channels == 3 else None
        if head:
            boxes = [choose(head.height, head.width) for choose in choices]
            found = _jpeg_parts(encoded, head, boxes, size, finest, smooth_chroma, interpolation)
            if found is not None:
                return found
        encoded = _array(_open(encoded, "L" if channels == 1 else "RGB", where, most_pixels))
    boxes = [choose(*encoded.shape[:2]) for choose in choices]
    return [resize.resized(encoded, box, size, interpolation) for box in boxes]


def _jpeg_parts(
    encoded: bytes,
    head: jpeg.Header,
    boxes: Sequence[resize.Box],
    size: int,
    finest: float,
    smooth_chroma: bool,
    interpolation: str,
) -> list[np.ndarray] | None:
    """Returns `parts` of a JPEG; None if libjpeg-turbo finds a fault."""
    found: dict[int, np.ndarray] = {}
    reductions = [_reduction(min(height, width), size * finest) for *_, height, width in boxes]
    for reduction in set(reductions):
        alike = [place for place, each in enumerate(reductions) if each == reduction]
        stop = max(
            top + height + resize.reach(height, size, interpolation)
            for top, _, height, _ in (boxes[place] for place in alike)
        )
        pixels = jpeg.rows(encoded, head, stop, reduction, smooth_chroma)
        if pixels is None:
            return None
        for place in alike:
            top, left, height, width = (x / reduction for x in boxes[place])
            box = (top, left, height, width)
            found[place] = resize.resized(pixels, box, size, interpolation)
    return [found[place] for place in range(len(boxes))]


def _fast_header(encoded: bytes, most_pixels: int) -> jpeg.Header | None:
    """Returns the header of a JPEG that libjpeg-turbo turns into upright RGB by itself, else
    None.
    """
    head = jpeg.header(encoded)
    usual = (
        head
        and head.upright
        and head.channels in (1, 3)
        and head.height * head.width <= most_pixels
    )
    return head if usual else None


def _reduction(side: float, least: float) -> int:
    return next((times for times in (8, 4, 2) if side / times >= least), 1)


def _open(encoded: bytes, mode: str, where: str, most_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded))
        if image.width * image.height > most_pixels:
            size = f"{image.width} x {image.height} pixels"
            raise ValueError(f"{size}, more than config.data.max_pixels = {most_pixels}")
        return _upright(image, mode)
    # Pillow's decoders raise many kinds for broken bytes: OSError, SyntaxError, ValueError,
    # struct.error, ...
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else " ".join(str(error).split())[:200]
        raise CorruptImageError(f"{where}: no readable image ({reason})") from error


def _upright(image: Image.Image, mode: str) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in _WIDE_GREY:
        image = Image.fromarray(
            (np.clip(np.asarray(image, np.int64), 0, 65535) >> 8).astype(np.uint8)
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
