"""Images of one's own, made what a network takes."""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from resnet_jax.data.images import decode, geometry
from resnet_jax.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float


def preprocess(images: Any, description: Any) -> "Float[np.ndarray, 'n size size c']":
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
    with faults_of_pictures():
        pixels = [
            decode.part(
                read(image, channels, name_of(image, number)),
                size,
                choose,
                name_of(image, number),
                finest=decode.FINEST_IN_SCORING,
                channels=channels,
                interpolation=description.interpolation,
            )
            for number, image in enumerate(listed(images))
        ]
    if not pixels:
        return np.zeros((0, size, size, channels), np.float32)
    mean, std = (np.asarray(moment, np.float32) for moment in (description.mean, description.std))
    return (np.stack(pixels).astype(np.float32) / 255 - mean) / std


@contextlib.contextmanager
def faults_of_pictures() -> Iterator[None]:
    """Tells whoever asks about pictures what to do about one that cannot be read.

    Raises:
      UserError: in place of a `CorruptImageError`, whose remedy is one of training.
    """
    try:
        yield
    except decode.CorruptImageError as error:
        raise UserError(f"{error.fault}; give another, or leave it out") from None


def listed(images: Any) -> Sequence[Any] | np.ndarray:
    """Returns images as a sequence: one alone counts as one, an array [N, H, W, C] as N.

    Raises:
      UserError: they are nothing of the kind.
    """
    if isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 4) < 4:
        return [images]
    if not isinstance(images, Iterable):
        raise UserError(
            f"images of type {type(images).__name__}: must be paths, PIL images or uint8 arrays"
        )
    return images if isinstance(images, np.ndarray) else list(images)


def name_of(image: Any, number: int) -> str:
    """Returns what to call an image in messages: its path, else its number."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"


def read(image: Any, channels: int, where: str) -> bytes | np.ndarray:
    """Returns the bytes of a file, or the pixels uint8 [H, W, C] of an image in memory.

    Args:
      image: a path, a PIL image or an array, as for `preprocess`.
      channels: of the pixels, 1 or 3.
      where: what to call it in the message.

    Raises:
      CorruptImageError: a file or a PIL image that cannot be read.
      UserError: an array that is no image.
    """
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except FileNotFoundError as error:
            raise decode.CorruptImageError(f"{where}: no such file") from error
        except OSError as error:
            raise decode.CorruptImageError(f"{where}: cannot be read ({error.strerror})") from error
    if isinstance(image, Image.Image):
        return decode.pixels_of(image, channels, where)
    return _checked(np.asarray(image), channels, where)


def _checked(pixels: np.ndarray, channels: int, where: str) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, channels):
        raise UserError(
            f"{where}: an array of {pixels.dtype} {list(pixels.shape)}; must be uint8 [H, W,"
            f" {channels}], not normalised yet"
        )
    return np.repeat(pixels, channels // pixels.shape[2], axis=2)
