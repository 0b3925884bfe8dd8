"""What every data source offers: a length, examples by place, class names, and the pixels'
moments.
"""

import copy
import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from resnet_jax.data.images import decode, geometry
from resnet_jax.data.sources import fingerprint
from resnet_jax.errors import UserError

# Mean and standard deviation of ImageNet's training pixels, per RGB channel, as torchvision's and
# Flax's references use them (pytorch/vision, references/classification/presets.py).
IMAGENET_MOMENTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Sets whose decoded images take no more than this are decoded, or resized, once and kept.
IN_MEMORY_BYTES = 1 << 30

Moments = tuple[tuple[float, ...], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Example:
    """One example of a source.

    Attributes:
      image: an encoded file's bytes, or uint8 [H, W, C].
      label: the class's number, from 0.
    """

    image: bytes | np.ndarray
    label: int


class Source:
    """Random access to the examples of one split.

    Attributes:
      name: the data set's name, as `config.data.name` has it.
      split: the name of the split in force, with its bounds where it is a part.
      classes: the classes' names, in the order of the labels.
      image_shape: (H, W, C), or None where the images are encoded files of any size.
      channels: that encoded files of any size are decoded to.
      labels: int32 [n], or None where only reading an example tells its label.
      holdout: the rule by which its files were divided, see `sources.holdout`; None: they were not.
      notes: lines for a person about what was found: what is no image, what was moved.
      bounds: (start, stop) of a part in its whole; None: it is the whole.
      in_memory: whether the images are arrays in memory: then, and only then, `take` works.
      faults: place -> what is wrong with an image in memory; `take` gives a black one there.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | None = None
    channels: int = 3
    labels: np.ndarray | None = None
    holdout: str | None = None
    notes: tuple[str, ...] = ()
    bounds: tuple[int, int] | None = None
    in_memory = False
    faults: Mapping[int, str] = types.MappingProxyType({})

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, place: int) -> Example:
        raise NotImplementedError

    def take(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (images uint8 [n, H, W, C], labels int32 [n]) at `places`, int [n]; see
        `in_memory`.
        """
        raise NotImplementedError

    def where(self, place: int) -> str:
        """Returns the file and record of an example, for messages."""
        return f"{self.name} {self.split}, example {place}"

    def moments(self) -> Moments:
        """Returns (mean, standard deviation) per channel, of pixels in 0..1."""
        return IMAGENET_MOMENTS

    def missing_classes(self) -> tuple[str, ...]:
        """Returns the classes that have no image here; () where labels are not known."""
        if self.labels is None:
            return ()
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return tuple(name for name, count in zip(self.classes, counts, strict=True) if not count)

    def lacking_classes(self) -> int:
        """Returns how many classes a part has none of because the whole lies class by class; 0
        where not known.
        """
        return 0

    def fingerprint(self) -> dict[str, Any]:
        """Returns what the split consists of, see `data.sources.fingerprint`.

        Raises:
          UserError: a file of it is gone.
        """
        raise NotImplementedError

    def ingredients(self, start: int, stop: int) -> str:
        """Returns a digest of the names, sizes and labels of the examples start <= place < stop.

        Raises:
          UserError: a file of them is gone.
        """
        whole = self.fingerprint()
        return fingerprint.of_part(whole, start, stop)["digest"] + whole["classes"]

    def part(self, start: int, stop: int, split: str) -> "Source":
        """Returns the examples in start <= place < stop as a source of its own, called `split`."""
        return Part(self, start, stop, split)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What a data set offers, before its examples are read.

    Attributes:
      where: what it is, for messages.
      splits: name -> a function that opens that split.
      without_split: what to do where a default split is missing; None: take parts of another.
    """

    where: str
    splits: Mapping[str, Callable[[], Source]]
    without_split: str | None = None


class Part(Source):
    """A contiguous part of another source; see `Source.part`."""

    bounds: tuple[int, int]

    def __init__(self, whole: Source, start: int, stop: int, split: str):
        self.name, self.classes, self.image_shape = whole.name, whole.classes, whole.image_shape
        self.split, self.in_memory, self.notes = split, whole.in_memory, whole.notes
        self.labels = None if whole.labels is None else whole.labels[start:stop]
        self.bounds, self.holdout = (start, stop), whole.holdout
        self._whole, self._start, self._length = whole, start, stop - start

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> Example:
        if not 0 <= place < self._length:
            raise IndexError(place)
        return self._whole[self._start + place]

    def take(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._whole.take(places + self._start)

    def where(self, place: int) -> str:
        return self._whole.where(self._start + place)

    def moments(self) -> Moments:
        return self._whole.moments()

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint.of_part(self._whole.fingerprint(), *self.bounds)

    def ingredients(self, start: int, stop: int) -> str:
        return self._whole.ingredients(self._start + start, self._start + stop)

    def lacking_classes(self) -> int:
        labels = self._whole.labels
        if labels is None or self.labels is None:
            return self._whole.lacking_classes()
        if (np.diff(labels) < 0).any():
            return 0
        return len(np.unique(labels)) - len(np.unique(self.labels))


class ArraySource(Source):
    """A split that sits in memory.

    Args:
      name, split, classes: as in `Source`.
      images: uint8 [n, H, W, C].
      labels: int [n], each in 0 .. len(classes) - 1.
      measure: returns the moments of the training images; called when they are needed.
      identify: returns the fingerprint of the files that the images come from; None: it is that of
        the arrays.
      faults: place -> what is wrong with an image that could not be read.

    Raises:
      UserError: the numbers of images and labels differ, or a label is no class.
    """

    in_memory = True
    image_shape: tuple[int, int, int]
    labels: np.ndarray

    def __init__(
        self,
        name: str,
        split: str,
        classes: tuple[str, ...],
        images: np.ndarray,
        labels: np.ndarray,
        measure: Callable[[], Moments],
        identify: Callable[[], dict[str, Any]] | None = None,
        faults: Mapping[int, str] | None = None,
    ):
        self.name, self.split, self.classes = name, split, classes
        self.images, self.labels = images, labels.astype(np.int32)
        self.image_shape = images.shape[1:]
        self._measure, self._identify, self.faults = measure, identify, faults or {}
        if len(images) != len(labels):
            raise UserError(
                f"{name} {split}: {len(images)} images but {len(labels)} labels; fetch files that "
                "belong together"
            )
        check_labels(self.labels, len(classes), f"{name} {split}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Example:
        if place in self.faults:
            raise decode.CorruptImageError(self.faults[place])
        return Example(self.images[place], int(self.labels[place]))

    def take(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.images[places], self.labels[places]

    def moments(self) -> Moments:
        return self._measure()

    def fingerprint(self) -> dict[str, Any]:
        if self._identify:
            return self._identify()
        return fingerprint.of_arrays(self.images, self.labels, self.classes)

    def part(self, start: int, stop: int, split: str) -> "ArraySource":
        part = copy.copy(self)
        part.split, part.bounds = split, (start, stop)
        part.images, part.labels = self.images[start:stop], self.labels[start:stop]
        part.faults = {place - start: fault for place, fault in self.faults.items()}
        part._identify = lambda: fingerprint.of_part(self.fingerprint(), start, stop)
        return part

    def bytes_at(self, size: int) -> int:
        """Returns the bytes that the images take when each is size x size."""
        return len(self) * size**2 * self.image_shape[2]

    def resized(
        self, size: int, interpolation: str = "bilinear", mode: str = "centre"
    ) -> "ArraySource":
        """Returns the same examples with images of size x size.

        Args:
          size: in pixels.
          interpolation: one of `resize.INTERPOLATIONS`.
          mode: "centre" resizes the short sides and crops the centres, "squash" resizes both sides.
        """
        if self.image_shape[:2] == (size, size):
            return self
        choose = functools.partial(geometry.central_part, size=size, share=1.0, mode=mode)
        images = np.empty((len(self), size, size, self.image_shape[2]), np.uint8)
        for place, image in enumerate(self.images):
            images[place] = decode.part(image, size, choose, self.name, interpolation=interpolation)
        # Resizers differ by a level from machine to machine, so the originals tell what this is.
        original, resized = self.fingerprint(), copy.copy(self)
        resized.images, resized.image_shape = images, images.shape[1:]
        resized._identify = lambda: original
        return resized


def count_shared(one: Source, other: Source) -> int:
    """Returns how many examples two splits of one data set have in common."""
    (name, low, high), (other_name, start, stop) = (
        (source.split.partition("[")[0], *(source.bounds or (0, len(source))))
        for source in (one, other)
    )
    if name != other_name and "all" in (name, other_name):
        # All files of a tree, beside a split of it.
        return len(set(map(one.where, range(len(one)))) & set(map(other.where, range(len(other)))))
    return max(0, min(high, stop) - max(low, start)) if name == other_name else 0


def normalisation(config: Any, source: Source) -> Moments:
    """Returns (mean, standard deviation) per channel by which images are normalised: `config`'s, or
    the source's.
    """
    return (config.mean, config.std) if config.mean is not None else source.moments()


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Checks that every label is one of `num_classes` classes counted from 0.

    Raises:
      UserError: one is not; the message names the first.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise UserError(
            f"{where}, example {wrong[0]}: label {labels[wrong[0]]} is outside"
            f" 0..{num_classes - 1}, the {num_classes} classes; labels count from 0, and a classes"
            " file has one line for each"
        )


def measure(images: np.ndarray) -> Moments:
    """Returns the exact mean and standard deviation per channel of pixels in 0..1.

    Args:
      images: uint8 [n, H, W, C]. The sums are taken over whole numbers, so no rounding depends on
        their order.
    """
    levels = np.arange(256)
    mean, std = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].reshape(-1), minlength=256)
        total, first, second = (int((counts * levels**power).sum()) for power in (0, 1, 2))
        average = first / max(total, 1)
        mean.append(average / 255)
        spread = (max(second * total - first * first, 0)) ** 0.5 / max(total, 1)
        std.append((spread or 255) / 255)
    return tuple(mean), tuple(std)
