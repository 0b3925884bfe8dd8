"""Which part of an image is shown, and at what size."""

import math

from resnet_jax.data.images.draws import Draws

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
    copy: int = 0,
) -> tuple[int, int, int, int]:
    """Draws the rectangle of a random-resized crop (Szegedy et al. 2014, section 6; as torchvision
    does).

    The area is uniform in `scale` times the image's, the logarithm of width over height uniform in
    that of `ratio`; after ten rectangles that do not fit, the central one of the nearest legal
    ratio.

    Args:
      height, width: of the image, in pixels.
      scale, ratio: (lowest, highest).
      seed, epoch, index, copy: what the draw is a pure function of.

    Returns:
      (top, left, height, width) in pixels, inside the image.
    """
    draws = Draws(_CROP_STREAM, seed, epoch, index, copy)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        area, shape, down, right = (draws.uniform() for _ in range(4))
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


def central_part(
    height: int, width: int, size: int, share: float, mode: str = "centre"
) -> tuple[float, float, float, float]:
    """Returns the part that a resize of the short side to size / share and a central crop of `size`
    show.

    The arithmetic is that of torchvision's Resize and CenterCrop: the short side becomes round(size
    / share), 224 / 0.875 = 256, the long side is rounded down, the crop's corner to the nearest
    even.

    Args:
      height, width: of the image, in pixels.
      size: the side of the crop, in pixels of the resized image.
      share: `config.data.eval_crop`.
      mode: "centre" keeps the image's shape as it is resized, "squash" makes both sides the same.

    Returns:
      (top, left, height, width) in pixels of the image, not whole in general.
    """
    short = max(size, round(size / share))
    if mode == "squash":
        new_height = new_width = short
    elif width <= height:
        new_height, new_width = int(short * height / width), short
    else:
        new_height, new_width = short, int(short * width / height)
    down, right = height / new_height, width / new_width
    top, left = round((new_height - size) / 2.0), round((new_width - size) / 2.0)
    return top * down, left * right, size * down, size * right
