"""Folder trees: one directory a class, ImageNet as tar-extracted."""

import os
import pathlib

import numpy as np

from resnet_jax.data import splits
from resnet_jax.data.sources import imagenet
from resnet_jax.data.sources.source import Example, Source
from resnet_jax.errors import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_EVALUATION = ("val", "validation", "valid", "test")
_SAME = ("val", "valid", "validation")


class FolderSource(Source):
    """The files of a folder tree, classes in order, and in each the files by name.

    Args:
      name, split, classes: as in `Source`.
      paths: the files.
      labels: int [n].
    """

    def __init__(
        self,
        name: str,
        split: str,
        classes: tuple[str, ...],
        paths: list[pathlib.Path],
        labels: np.ndarray,
    ):
        self.name, self.split, self.classes = name, split, classes
        self.paths, self.labels = paths, labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Example:
        try:
            with open(self.paths[place], "rb", buffering=0) as file:
                return Example(file.readall(), int(self.labels[place]))
        except OSError as error:
            raise UserError(
                f"{self.paths[place]}: cannot be read ({error.strerror}); restore the file"
            ) from error

    def where(self, place: int) -> str:
        return str(self.paths[place])


def open_split(config, split: str | None, train: bool) -> FolderSource:
    """Opens one split of the folder tree in `config.data.dir`: DIR/SPLIT/CLASS/FILE, or
    DIR/CLASS/FILE.

    The evaluation split is the first of val, validation, valid and test that is there; val, valid
    and validation are one name. Of a single folder of classes, `config.data.eval_fraction` of each
    class's files, evenly spread, is the split "val" and the rest is "train". Class names are
    sorted, or the lines of DIR/classes.txt.

    Args:
      config: `config.data`.
      split: the split's name, or None for the one that `train` asks for.
      train: whether this is for training.

    Raises:
      UserError: the tree or the split does not exist, a class is empty or unknown.
    """
    field = "train_split" if train else "eval_split"
    root = pathlib.Path(config.dir)
    if not root.is_dir():
        raise UserError(
            f"config.data.dir = {config.dir!r}: no such directory; give that of the image tree"
        )
    present = [name for name in ("train", *_EVALUATION) if (root / name).is_dir()]
    if not present:
        return _held_out(root, split or ("train" if train else "val"), config.eval_fraction, field)
    name = split or ("train" if train else next((n for n in _EVALUATION if n in present), None))
    if name is None:
        raise UserError(
            f"config.data.dir = {config.dir!r}: has no evaluation split ({', '.join(_EVALUATION)});"
            f" add one, or hold out a share of each class with data.dir={str(root / 'train')!r} and"
            " data.eval_fraction=0.1"
        )
    chosen = next(
        (n for n in (name, *(_SAME if name in _SAME else ())) if (root / n).is_dir()), None
    )
    if chosen is None:
        raise splits.absent(field, name, present, str(root))
    classes = _classes(root, root / ("train" if "train" in present else chosen))
    paths, labels = _files(root / chosen, classes)
    return FolderSource("folder", chosen, imagenet.readable(classes), paths, labels)


def _held_out(root: pathlib.Path, name: str, fraction: float | None, field: str) -> FolderSource:
    classes = _classes(root, root)
    if fraction is None:
        raise UserError(
            f"config.data.dir = {str(root)!r}: has no train and val folders; make them, or hold out"
            f" a share of its {len(classes)} classes with data.eval_fraction=0.1"
        )
    if name not in ("train", "val"):
        raise splits.absent(field, name, ["train", "val"], str(root))
    paths, labels = _files(root, classes)
    held = np.zeros(len(paths), bool)
    for label in range(len(classes)):
        places = np.flatnonzero(labels == label)
        # The k-th file is held out where k * fraction passes a whole number: evenly spread, the
        # same everywhere.
        steps = np.floor(np.arange(1, len(places) + 1) * fraction) > np.floor(
            np.arange(len(places)) * fraction
        )
        held[places] = steps
    chosen = np.flatnonzero(held if name == "val" else ~held)
    readable = imagenet.readable(classes)
    return FolderSource("folder", name, readable, [paths[i] for i in chosen], labels[chosen])


def _classes(root: pathlib.Path, split: pathlib.Path) -> list[str]:
    listed = root / "classes.txt"
    if listed.is_file():
        return listed.read_text().splitlines()
    found = sorted(
        entry.name
        for entry in os.scandir(split)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not found:
        raise UserError(f"{split}: has no class folders; the tree is {split}/CLASS/IMAGE.jpg")
    return found


def _files(split: pathlib.Path, classes: list[str]) -> tuple[list[pathlib.Path], np.ndarray]:
    unknown = [
        entry.name
        for entry in os.scandir(split)
        if entry.is_dir() and entry.name not in classes and not entry.name.startswith(".")
    ]
    if unknown:
        raise UserError(
            f"{split / min(unknown)}: no class of the training folder or classes.txt; remove or"
            " rename it"
        )
    paths, labels = [], []
    for label, name in enumerate(classes):
        if not (split / name).is_dir():
            raise UserError(
                f"{split / name}: no such class folder; every class needs one in every split"
            )
        files = sorted(
            entry.name
            for entry in os.scandir(split / name)
            if entry.name.lower().endswith(_SUFFIXES) and entry.is_file()
        )
        if not files:
            raise UserError(
                f"{split / name}: holds no images ({', '.join(_SUFFIXES)}); remove the class or"
                " fill it"
            )
        paths += [split / name / file for file in files]
        labels += [label] * len(files)
    return paths, np.array(labels, np.int32)
