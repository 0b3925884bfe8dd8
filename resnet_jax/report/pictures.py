"""Images as PNGs: of the evaluation split, with and without what the network looked at."""

import io

import numpy as np
from PIL import Image

SIDE = 144
_GAP = 4


def png(pixels: np.ndarray) -> bytes:
    """Returns uint8 [H, W, 3] as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def shown(image: np.ndarray) -> np.ndarray:
    """Returns an image, uint8 [H, W, C], in colour and about `SIDE` pixels large.

    A small one has its pixels repeated, a large one is shrunk; one whose channels are neither grey
    nor RGB shows their mean.
    """
    if image.shape[-1] != 3:
        image = image.mean(-1, keepdims=True).round().astype(np.uint8).repeat(3, -1)
    longest = max(image.shape[:2])
    if longest <= SIDE:
        zoom = SIDE // longest
        return image.repeat(zoom, 0).repeat(zoom, 1)
    height, width = (max(1, round(side * SIDE / longest)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def with_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns an image as `shown`, and beside it the same under a map of heat.

    Args:
      image: uint8 [H, W, C].
      heat: [h, w], at least 0; its largest becomes the hottest.
    """
    from matplotlib import colormaps

    left = shown(image)
    height, width = left.shape[:2]
    small = Image.fromarray((heat / max(float(heat.max()), 1e-12)).astype(np.float32))
    share = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))[..., None]
    colours = 255 * colormaps["inferno"](share[..., 0])[..., :3]
    grey = left.mean(-1, keepdims=True)
    right = (0.35 + 0.3 * (1 - share)) * grey + 0.65 * share * colours
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.concatenate([left, gap, right.clip(0, 255).astype(np.uint8)], 1)
