"""The built-in data set: 1,797 real handwritten digits of 8x8 pixels."""

import functools
import importlib.resources
from collections.abc import Callable
from typing import Any

import numpy as np

from resnet_jax.data.sources.source import ArraySource, DataSet, measure

CLASSES = tuple("0123456789")


def open_data(config: Any, say: Callable[[str], None]) -> DataSet:
    """Offers the digits, "train" and "test": uint8 images [n, 8, 8, 1] in memory.

    The images are the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C.
    Kaynak, UCI Machine Learning Repository, 1998, doi 10.24432/C50P49, CC BY 4.0), the same that
    scikit-learn's `load_digits` returns: strokes counted in 4x4 cells, 0 to 16, here stretched to
    0..255. The split is this package's own, fixed and stratified: of each class every fifth image,
    in the file's order, is for testing (355 images), the others (1,442) for training.
    """
    return DataSet("digits", {name: functools.partial(_open, name) for name in ("train", "test")})


def _open(split: str) -> ArraySource:
    images, labels, is_test = _load()
    chosen = is_test if split == "test" else ~is_test
    return ArraySource("digits", split, CLASSES, images[chosen], labels[chosen], _moments)


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with (
        (importlib.resources.files("resnet_jax.data.sources") / "digits.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        levels, labels = arrays["images"], arrays["labels"].astype(np.int32)
    images = np.round(levels * (255 / 16)).astype(np.uint8)[..., None]
    rank = np.zeros(len(labels), int)
    for label in range(len(CLASSES)):
        rank[labels == label] = np.arange(np.sum(labels == label))
    return images, labels, rank % 5 == 4


@functools.cache
def _moments():
    images, _, is_test = _load()
    return measure(images[~is_test])
