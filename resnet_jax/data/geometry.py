"""Which part of an image is shown, and at what size."""

import math

import numpy as np

_TRIES = 10
_CROP_STREAM = 0x63726F70


def random_crop(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    seed: int,
    epoch: int,
    index: int,
) -> tuple[int, int, int, int]:
    """Draws the rectangle of a random-resized crop (Szegedy et al. 2014, section 6; as torchvision does).

    The area is uniform in `scale` times the image's, the logarithm of width over height uniform in that of
    `ratio`; after ten rectangles that do not fit, the central one of the nearest legal ratio.

    Args:
      height, width: of the image, in pixels.
      scale, ratio: (lowest, highest).
      seed, epoch, index: what the draw is a pure function of.

    Returns:
      (top, left, height, width) in pixels, inside the image.
    """
    words = np.random.Philox(key=[seed, _CROP_STREAM], counter=[0, 0, epoch, index]).random_raw(4 * _TRIES)
    draws = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, shape, down, right in draws.reshape(_TRIES, 4).tolist():
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
        shape = math.exp(low + (high - low) * shape)
        crop_width, crop_height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(down * (height - crop_height + 1))
            left = int(right * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_width, crop_height = width, height
    if width / height < ratio[0]:
        crop_height = min(max(round(width / ratio[0]), 1), height)
    elif width / height > ratio[1]:
        crop_width = min(max(round(height * ratio[1]), 1), width)
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def resized_short_side(height: int, width: int, short: int) -> tuple[int, int]:
    """Returns (height, width) after the short side is brought to `short`, rounded as torchvision's Resize."""
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def centre(height: int, width: int, size: int) -> tuple[int, int]:
    """Returns the (top, left) of the central square of side `size`, as torchvision's CenterCrop rounds."""
    return round((height - size) / 2.0), round((width - size) / 2.0)
