"""The filters by which images change their size: with antialiasing, as Pillow defines them.

The filter is a triangle (bilinear), a cubic of a = -0.5 (bicubic; Keys 1981) or a windowed sinc of
three lobes (lanczos) whose support grows with the reduction, which is what torchvision's and timm's
transforms use on Pillow images. Where the package `cykooz_resizer` is installed (a Rust library
with vector instructions; pip installs it with this package wherever it has a wheel) it does the
work, several times faster than Pillow; the two round differently, by one grey level at the most.
"""

import math
import threading
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

try:
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None

# (top, left, height, width) in pixels, whole or not.
Box = tuple[float, float, float, float]

_local = threading.local()


class _Filter(NamedTuple):
    support: int  # in pixels of the result, where an image shrinks
    pillow: Image.Resampling
    cykooz: str


_FILTERS = {
    "bilinear": _Filter(1, Image.Resampling.BILINEAR, "bilinear"),
    "bicubic": _Filter(2, Image.Resampling.BICUBIC, "catmull_rom"),
    "lanczos": _Filter(3, Image.Resampling.LANCZOS, "lanczos3"),
}
INTERPOLATIONS = tuple(_FILTERS)


def reach(length: float, size: int, interpolation: str = "bilinear") -> int:
    """Returns how far beyond a part of `length` the filter looks when the part becomes `size`, in
    pixels.
    """
    return math.ceil(_FILTERS[interpolation].support * max(length / size, 1)) + 1


def resized(pixels: np.ndarray, box: Box, size: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resizes one part of an image to a square.

    Args:
      pixels: uint8 [H, W, C], C 1 or 3.
      box: the part.
      size: the side of the result, in pixels.
      interpolation: one of `INTERPOLATIONS`.

    Returns:
      uint8 [size, size, C], read-only.
    """
    top, left, height, width = box
    down, right = reach(height, size, interpolation), reach(width, size, interpolation)
    row, column = max(math.floor(top) - down, 0), max(math.floor(left) - right, 0)
    window = pixels[row : math.ceil(top + height) + down, column : math.ceil(left + width) + right]
    top, left = top - row, left - column
    # The sums of fractions may pass the border by a rounding error.
    height, width = min(height, window.shape[0] - top), min(width, window.shape[1] - left)
    resize = _by_pillow if cykooz_resizer is None else _by_cykooz
    return resize(window, (top, left, height, width), size, _FILTERS[interpolation])


def _by_pillow(pixels: np.ndarray, box: Box, size: int, filter_: _Filter) -> np.ndarray:
    top, left, height, width = box
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    edges = (left, top, left + width, top + height)
    result = np.asarray(image.resize((size, size), filter_.pillow, box=edges))
    return result.reshape(size, size, pixels.shape[2])


def _by_cykooz(pixels: np.ndarray, box: Box, size: int, filter_: _Filter) -> np.ndarray:
    assert cykooz_resizer is not None
    top, left, height, width = box
    kind = cykooz_resizer.PixelType.U8 if pixels.shape[2] == 1 else cykooz_resizer.PixelType.U8x3
    options = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(
            getattr(cykooz_resizer.FilterType, filter_.cykooz)
        ),
        crop_box=cykooz_resizer.CropBox(left, top, width, height),
    )
    resizer, target = _tools(kind, size)
    image = cykooz_resizer.ImageData(pixels.shape[1], pixels.shape[0], kind, pixels.tobytes())
    resizer.resize(image, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(size, size, pixels.shape[2])


def _tools(kind: Any, size: int) -> tuple[Any, Any]:
    """Returns this thread's own resizer and target image: both keep memory that every image needs
    again.
    """
    assert cykooz_resizer is not None
    if not hasattr(_local, "resizer"):
        _local.resizer, _local.targets = cykooz_resizer.Resizer(), {}
    if (kind, size) not in _local.targets:
        _local.targets[kind, size] = cykooz_resizer.ImageData(size, size, kind)
    return _local.resizer, _local.targets[kind, size]
