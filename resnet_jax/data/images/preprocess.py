"""Images of one's own, made what a network takes."""

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnet_jax.data.images import decode, geometry
from resnet_jax.errors import UserError


def preprocess(images: Any, description: Any) -> np.ndarray:
    """Decodes, resizes, crops and normalises images as a network's description says.

    An EXIF rotation is applied, which timm's own transforms do not; all else is theirs, up to
    rounding.

    Args:
      images: paths, PIL images or uint8 arrays ([H, W] or [H, W, C], an array [N, H, W, C]
        counting as N of them), in any mixture; or one of these alone.
      description: a `Description`, from `restore` or `load_pretrained`.

    Returns:
      float32 [N, eval_size, eval_size, C], C being 1 or 3 as the network takes.

    Raises:
      UserError: an image cannot be read, or an array is no uint8 image of C channels.
    """
    size, channels = description.eval_size, len(description.mean)
    choose = functools.partial(
        geometry.central_part, size=size, share=description.crop, mode=description.crop_mode
    )
    pixels = [
        decode.part(
            image,
            size,
            choose,
            where,
            finest=decode.FINEST_IN_SCORING,
            channels=channels,
            interpolation=description.interpolation,
        )
        for image, where in _each(images, channels)
    ]
    if not pixels:
        return np.zeros((0, size, size, channels), np.float32)
    mean, std = (np.asarray(moment, np.float32) for moment in (description.mean, description.std))
    return (np.stack(pixels).astype(np.float32) / 255 - mean) / std


def _each(images: Any, channels: int) -> Iterator[tuple[bytes | np.ndarray, str]]:
    """Yields the bytes of a file or the pixels [H, W, C] of an image, and its name."""
    alone = isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 4) < 4
    for number, image in enumerate([images] if alone else _iterable(images)):
        if isinstance(image, str | os.PathLike):
            try:
                yield Path(image).read_bytes(), str(image)
            except OSError as error:
                raise UserError(f"{image}: cannot be read ({error.strerror})") from error
        elif isinstance(image, Image.Image):
            yield decode.pixels_of(image, channels, f"image {number}"), f"image {number}"
        else:
            yield _checked(np.asarray(image), channels, f"image {number}"), f"image {number}"


def _iterable(images: Any) -> Iterable[Any]:
    if not isinstance(images, Iterable):
        raise UserError(
            f"images of type {type(images).__name__}: must be paths, PIL images or uint8 arrays"
        )
    return images


def _checked(pixels: np.ndarray, channels: int, where: str) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, channels):
        raise UserError(
            f"{where}: an array of {pixels.dtype} {list(pixels.shape)}; must be uint8 [H, W,"
            f" {channels}], not normalised yet"
        )
    return np.repeat(pixels, channels // pixels.shape[2], axis=2)
