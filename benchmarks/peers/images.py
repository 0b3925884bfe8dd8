"""The input's work done by others: Pillow as torchvision uses it, and grain round our decoder."""

import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

from resnet_jax.data.images import decode, geometry

SIZE, SCALE, RATIO = 224, (0.08, 1.0), (3 / 4, 4 / 3)


def pillow(paths: list[str], threads: int, batch_size: int) -> Callable[[int], None]:
    """Returns a function that makes so many images, one after the other, of files in turn."""

    def one(number: int) -> np.ndarray:
        with open(paths[number % len(paths)], "rb") as file:
            image = Image.open(file).convert("RGB")
        part = image.crop(random_box(*image.size)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        mirrored = random.random() < 0.5
        return np.array(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part)

    def run(images: int) -> None:
        batch = np.empty((batch_size, SIZE, SIZE, 3), np.uint8)
        with ThreadPoolExecutor(threads) as pool:
            for place, pixels in enumerate(pool.map(one, range(images))):
                batch[place % batch_size] = pixels

    return run


def grain(paths: list[str], threads: int, batch_size: int) -> Callable[[int], None]:
    """Returns a function that makes so many images by grain's threads, with our decoder."""
    import grain

    crop = partial(geometry.random_crop, scale=SCALE, ratio=RATIO, seed=0, epoch=0)

    def one(number: int) -> np.ndarray:
        path = paths[number % len(paths)]
        with open(path, "rb") as file:
            return decode.part(file.read(), SIZE, partial(crop, index=number), path)

    def run(images: int) -> None:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * batch_size)
        for _ in grain.MapDataset.range(images).map(one).to_iter_dataset(options).batch(batch_size):
            pass

    return run


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Draws (left, top, right, bottom) as torchvision's RandomResizedCrop does."""
    for _ in range(10):
        area = height * width * random.uniform(*SCALE)
        ratio = math.exp(random.uniform(*map(math.log, RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
