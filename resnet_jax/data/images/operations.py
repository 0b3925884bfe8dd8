"""The operations that policies choose from: functions of one Pillow image, RGB or grey.

They are those of AutoAugment (Cubuk et al. 2018, table 6), as Pillow does them. Where an image is
sheared or turned, pixels are interpolated bilinearly, as torchvision's reference training does
(timm takes bilinear or bicubic at random, the papers' own code the nearest pixel); it is moved by
whole pixels. What comes into view from outside is `fill`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageOps

# One number a channel, or one for all.
Fill = int | tuple[int, ...]

_BILINEAR = Image.Resampling.BILINEAR
_AFFINE = Image.Transform.AFFINE
_RAMP = Image.frombytes("L", (256, 1), bytes(range(256)))  # each value once


def shear_x(image: Image.Image, amount: float, fill: Fill) -> Image.Image:
    """Moves each row to the left by `amount` times its distance from the top."""
    return image.transform(image.size, _AFFINE, (1, amount, 0, 0, 1, 0), _BILINEAR, fillcolor=fill)


def shear_y(image: Image.Image, amount: float, fill: Fill) -> Image.Image:
    """Moves each column up by `amount` times its distance from the left."""
    return image.transform(image.size, _AFFINE, (1, 0, 0, amount, 1, 0), _BILINEAR, fillcolor=fill)


def translate_x(image: Image.Image, pixels: int, fill: Fill) -> Image.Image:
    """Moves the image to the left."""
    return image.transform(image.size, _AFFINE, (1, 0, pixels, 0, 1, 0), fillcolor=fill)


def translate_y(image: Image.Image, pixels: int, fill: Fill) -> Image.Image:
    """Moves the image up."""
    return image.transform(image.size, _AFFINE, (1, 0, 0, 0, 1, pixels), fillcolor=fill)


def rotate(image: Image.Image, degrees: float, fill: Fill) -> Image.Image:
    """Turns the image about its centre, against the clock."""
    return image.rotate(degrees, _BILINEAR, fillcolor=fill)


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """Blends with black at 0; 1 leaves the image, above 1 is brighter."""
    return ImageEnhance.Brightness(image).enhance(factor)


def color(image: Image.Image, factor: float) -> Image.Image:
    """Blends with its own grey at 0; 1 leaves the image, above 1 is more colourful."""
    return ImageEnhance.Color(image).enhance(factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Blends with the mean grey at 0; 1 leaves the image, above 1 is more contrast."""
    grey = np.asarray(image.convert("L"))
    mean = Image.new("L", _RAMP.size, int(grey.sum() / grey.size + 0.5))
    return _mapped(image, list(Image.blend(mean, _RAMP, factor).tobytes()))


def sharpness(image: Image.Image, factor: float) -> Image.Image:
    """Blends with a smoothed image at 0; 1 leaves the image, above 1 is sharper.

    What smooths is Pillow's filter SMOOTH: a pixel counts five times, its eight neighbours once.
    """
    # Pillow's own filter, in floats, takes four times as long.
    pixels = np.asarray(image).astype(np.uint16)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * pixels[1:-1, 1:-1]
    smooth = np.array(image)
    smooth[1:-1, 1:-1] = (2 * sums + 13) // 26
    return Image.blend(Image.fromarray(smooth), image, factor)


def hue(image: Image.Image, turn: float) -> Image.Image:
    """Turns the hue by `turn` of the colour circle, as torchvision does; grey images stay."""
    if image.mode == "L":
        return image
    channels = list(image.convert("HSV").split())
    # Pillow's circle has 256 hues; what passes its end comes in at its beginning.
    moved = np.asarray(channels[0]) + np.uint8(int(turn * 255) % 256)
    channels[0] = Image.fromarray(moved)
    return Image.merge("HSV", channels).convert("RGB")


def posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keeps the highest `bits` of each value; 8 leave the image, 0 make it black."""
    # Not Pillow's own, which refuses 0 bits from version 13 on; timm's RandAugment asks for them.
    return _mapped(image, [value >> (8 - bits) << (8 - bits) for value in range(256)])


def solarize(image: Image.Image, threshold: float) -> Image.Image:
    """Inverts the values from `threshold` on; 256 leaves the image."""
    return ImageOps.solarize(image, math.ceil(threshold))


def solarize_add(image: Image.Image, amount: int) -> Image.Image:
    """Adds `amount` to the values below 128."""
    return _mapped(
        image, [min(255, value + amount) if value < 128 else value for value in range(256)]
    )


def _mapped(image: Image.Image, table: list[int]) -> Image.Image:
    return image.point(table * len(image.getbands()))


def autocontrast(image: Image.Image) -> Image.Image:
    """Stretches each channel so that it reaches from 0 to 255."""
    found: Any = image.getextrema()  # a pair, or one for each channel
    tables = [_stretched(*pair) for pair in (found if image.mode == "RGB" else [found])]
    return image.point(np.concatenate(tables).tolist())


def _stretched(lowest: int, highest: int) -> np.ndarray:
    """Returns what each of 256 values becomes where these two become 0 and 255."""
    values = np.arange(256)
    if lowest == highest:
        return values
    scale = 255.0 / (highest - lowest)
    return np.clip((values * scale - lowest * scale).astype(int), 0, 255)


def equalize(image: Image.Image) -> Image.Image:
    """Maps each channel so that its values are spread evenly."""
    return ImageOps.equalize(image)


def invert(image: Image.Image) -> Image.Image:
    return ImageChops.invert(image)


_MOVES = (shear_x, shear_y, translate_x, translate_y, rotate)
_AMOUNTS = (brightness, color, contrast, sharpness, hue, posterize, solarize, solarize_add)
_PLAIN = (autocontrast, equalize, invert)
OPERATIONS: dict[str, Callable] = {f.__name__: f for f in (*_MOVES, *_AMOUNTS, *_PLAIN)}


def apply(image: Image.Image, name: str, amount: float, fill: Fill) -> Image.Image:
    """Returns what the operation `name` makes of an image.

    Args:
      image: of mode RGB or L.
      name: one of `OPERATIONS`, or "identity".
      amount: its second argument, where it has one.
      fill: what comes into view from outside, where the operation moves the image.
    """
    if name == "identity":
        return image
    operation = OPERATIONS[name]
    if operation in _MOVES:
        return operation(image, amount, fill)
    return operation(image, amount) if operation in _AMOUNTS else operation(image)
