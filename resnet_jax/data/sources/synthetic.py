"""Images made of nothing: for measuring speed without a disk, and for tests."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from resnet_jax.data.sources import fingerprint
from resnet_jax.data.sources.source import DataSet, Example, Source

_BANK_BYTES = 32 << 20


class SyntheticSource(Source):
    """Coloured blocks with noise; the blocks' colours tell the class, so that a network can learn
    them.

    A bank of at most 32 MiB of images is drawn once, the same for every seed, and example i is
    image i modulo the bank's size, so a batch costs a copy and no more.
    """

    in_memory = True

    def __init__(self, split: str, length: int, num_classes: int, size: int, noise_seed: int):
        self.name, self.split = "synthetic", split
        self.classes = tuple(f"class {label}" for label in range(num_classes))
        self.image_shape = (size, size, 3)
        self._length = length
        bank = max(1, min(length, 4096, _BANK_BYTES // (size * size * 3)))
        self._labels = (np.arange(bank) % num_classes).astype(np.int32)
        self._bank = _draw(self._labels, num_classes, size, noise_seed)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> Example:
        return Example(
            self._bank[place % len(self._bank)], int(self._labels[place % len(self._bank)])
        )

    def fingerprint(self) -> dict[str, Any]:
        # The images follow from the bank, the example from its place.
        found = fingerprint.of_arrays(self._bank, self._labels, self.classes)
        return fingerprint.of_part(found, 0, len(self))

    def take(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slots = places % len(self._bank)
        return self._bank[slots], self._labels[slots]


def open_data(config: Any, say: Callable[[str], None]) -> DataSet:
    """Offers "train" and "eval" with as many images and classes as `config.data` states."""
    size, classes = config.image_size or 224, config.synthetic_classes
    lengths = {"train": config.synthetic_train, "eval": config.synthetic_eval}
    return DataSet(
        "synthetic",
        {
            name: functools.partial(SyntheticSource, name, length, classes, size, noise_seed)
            for noise_seed, (name, length) in enumerate(lengths.items())
        },
    )


def _draw(labels: np.ndarray, num_classes: int, size: int, noise_seed: int) -> np.ndarray:
    colours = _bytes(0, num_classes * 4 * 4 * 3).reshape(num_classes, 4, 4, 3)
    block = np.arange(size) * 4 // size
    images = colours[labels][:, block][:, :, block]
    noise = _bytes(noise_seed + 1, images.size).reshape(images.shape)
    images //= 2
    images += noise // 2
    return images


def _bytes(stream: int, count: int) -> np.ndarray:
    words = np.random.Philox(key=stream).random_raw(-(-count // 8))
    return words.view(np.uint8)[:count].copy()
