"""A batch as a picture, because people look at their data first."""

import math
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from resnet_jax.data.loader import Loader
from resnet_jax.data.progressive import ProgressiveLoader

_CAPTION = 14
_LEAST_SIDE = 96


def save_grid(
    loader: Loader | ProgressiveLoader,
    number: int,
    path: str | pathlib.Path,
    augment: Callable[[dict], tuple] | None = None,
    most: int = 64,
) -> None:
    """Writes one batch as a grid of images, each with its class's name below.

    Args:
      loader: makes the batch.
      number: the batch's number.
      path: the picture's file; its suffix names the format.
      augment: from `make_augment`, applied first; a mixed image has both names and their shares.
        None: the batch as the host makes it.
      most: how many images are shown at the most.
    """
    batch = loader[number]
    images, labels = batch["image"], batch["label"]
    weights = np.zeros((len(labels), len(loader.source.classes)))
    weights[np.arange(len(labels)), labels] = 1
    if augment is not None:
        normalised, weights = (np.asarray(result, np.float64) for result in augment(batch))
        mean, std = loader.moments()
        images = np.clip(np.round(255 * (normalised * std + mean)), 0, 255).astype(np.uint8)
    shown = min(most, len(images))
    zoom = max(1, _LEAST_SIDE // images.shape[1])
    height, width = images.shape[1] * zoom, images.shape[2] * zoom
    columns = math.ceil(math.sqrt(shown))
    rows = -(-shown // columns)
    picture = Image.new("RGB", (columns * (width + 2), rows * (height + _CAPTION + 2)), "white")
    draw = ImageDraw.Draw(picture)
    for place in range(shown):
        left, top = place % columns * (width + 2), place // columns * (height + _CAPTION + 2)
        pixels = images[place].repeat(zoom, 0).repeat(zoom, 1)
        picture.paste(
            Image.fromarray(pixels[..., :3] if pixels.shape[-1] > 2 else pixels[..., 0]),
            (left, top),
        )
        caption = (
            _caption(weights[place], loader.source.classes)
            if batch["mask"][place]
            else "(not counted)"
        )
        draw.text((left + 1, top + height), _fitting(draw, caption, width), fill="black")
    picture.save(path)


def _caption(weights: np.ndarray, classes: tuple[str, ...]) -> str:
    named = [
        (weights[label], classes[label]) for label in np.argsort(-weights)[:2] if weights[label] > 0
    ]
    if len(named) == 1:
        return named[0][1]
    return " + ".join(f"{weight:.0%} {name}" for weight, name in named)


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    # Pillow's built-in font has no letters beyond Latin-1.
    text = text.encode("latin-1", "replace").decode("latin-1")
    while text and draw.textlength(text) > width:
        text = text[:-1]
    return text
