"""The one filter by which images change their size: bilinear with antialiasing, as Pillow defines it.

The filter is a triangle whose support grows with the reduction, which is what torchvision's transforms use on Pillow
images. Where the package `cykooz_resizer` is installed (a Rust library with vector instructions; pip installs it with
this package wherever it has a wheel) it does the work, several times faster than Pillow; the two round differently, by
one grey level at the most.
"""

import math
import threading

import numpy as np
from PIL import Image

try:
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None

# (top, left, height, width) in pixels, whole or not.
Box = tuple[float, float, float, float]

_local = threading.local()


def reach(length: float, size: int) -> int:
    """Returns how far beyond a part of `length` the filter looks when the part becomes `size`, in pixels."""
    return math.ceil(max(length / size, 1)) + 1


def resized(pixels: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Resizes one part of an image to a square.

    Args:
      pixels: uint8 [H, W, C], C 1 or 3.
      box: the part.
      size: the side of the result, in pixels.

    Returns:
      uint8 [size, size, C].
    """
    top, left, height, width = box
    down, right = reach(height, size), reach(width, size)
    row, column = max(math.floor(top) - down, 0), max(math.floor(left) - right, 0)
    last_row = min(math.ceil(top + height) + down, pixels.shape[0])
    last_column = min(math.ceil(left + width) + right, pixels.shape[1])
    image = _window(pixels, row, column, last_row, last_column)
    return resized_image(image, (top - row, left - column, height, width), size)


def resized_image(image: Image.Image, box: Box, size: int) -> np.ndarray:
    """Does the same to a Pillow image of mode L or RGB."""
    top, left, height, width = box
    # The sums of fractions may pass the border by a rounding error.
    height, width = min(height, image.height - top), min(width, image.width - left)
    if cykooz_resizer is None:
        edges = (left, top, left + width, top + height)
        target = image.resize((size, size), Image.Resampling.BILINEAR, box=edges)
    else:
        resizer, target = _tools(image.mode, size)
        resizer.resize_pil(image, target, _options(left, top, width, height))
    result = np.asarray(target)
    return result[..., None] if result.ndim == 2 else result


def _window(pixels: np.ndarray, top: int, left: int, bottom: int, right: int) -> Image.Image:
    """Returns part of uint8 [H, W, C] as a Pillow image."""
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[top:bottom, left:right, 0])
    stride = 3 * pixels.shape[1]
    # Pillow steps over the columns that are left out by itself, which spares a copy.
    data = np.ascontiguousarray(pixels).reshape(-1)[
        top * stride + 3 * left : (bottom - 1) * stride + 3 * right
    ]
    return Image.frombuffer("RGB", (right - left, bottom - top), data, "raw", "RGB", stride, 1)


def _tools(mode: str, size: int) -> tuple["cykooz_resizer.Resizer", Image.Image]:
    """Returns this thread's own resizer and target image: both keep memory that every image needs again."""
    if not hasattr(_local, "resizer"):
        _local.resizer, _local.targets = cykooz_resizer.Resizer(), {}
    if (mode, size) not in _local.targets:
        _local.targets = {(mode, size): Image.new(mode, (size, size))}
    return _local.resizer, _local.targets[mode, size]


def _options(left: float, top: float, width: float, height: float) -> "cykooz_resizer.ResizeOptions":
    return cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.bilinear),
        crop_box=cykooz_resizer.CropBox(left, top, width, height),
        use_alpha=False,
    )
