"""The same work done by others: Pillow as torchvision's references use it, and grain round this
project's decoder.
"""

import functools
import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from resnet_jax.data.images import decode, geometry

SIZE, SCALE, RATIO = 224, (0.08, 1.0), (3 / 4, 4 / 3)


def pillow(paths: list[str], threads: int) -> Callable[[int], None]:
    """Returns a function that decodes, crops, resizes and mirrors so many images, one file after
    the other.
    """

    def one(path: str) -> np.ndarray:
        with open(path, "rb") as file:
            image = Image.open(file).convert("RGB")
        top, left, height, width = _torchvision_crop(image.height, image.width)
        part = image.crop((left, top, left + width, top + height)).resize(
            (SIZE, SIZE), Image.Resampling.BILINEAR
        )
        if random.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(part)

    def run(images: int) -> None:
        batch = np.empty((64, SIZE, SIZE, 3), np.uint8)
        with ThreadPoolExecutor(threads) as pool:
            for place, pixels in enumerate(
                pool.map(one, (paths[i % len(paths)] for i in range(images)))
            ):
                batch[place % 64] = pixels

    return run


def grain(paths: list[str], threads: int, batch_size: int) -> Callable[[int], None]:
    """Returns a function that makes so many images in batches by grain's threads, with this
    project's decoder.
    """
    import grain

    def one(place: int) -> np.ndarray:
        path = paths[place % len(paths)]
        with open(path, "rb") as file:
            encoded = file.read()
        choose = functools.partial(
            geometry.random_crop, scale=SCALE, ratio=RATIO, seed=0, epoch=0, index=place
        )
        return decode.part(encoded, SIZE, choose, path)

    def run(images: int) -> None:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * batch_size)
        batches = grain.MapDataset.range(images).map(one).to_iter_dataset(options).batch(batch_size)
        for _ in batches:
            pass

    return run


def _torchvision_crop(height: int, width: int) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = height * width * random.uniform(*SCALE)
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
