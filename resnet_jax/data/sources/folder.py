"""Folder trees: one directory a class, ImageNet as tar-extracted."""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from resnet_jax.data.sources import classes, fingerprint, holdout, imagenet, tree
from resnet_jax.data.sources.source import DataSet, Example, Source
from resnet_jax.errors import UserError

_WHOLE = "all"
_SPLITS = ("train", "val", "validation", "valid", "test")


class FolderSource(Source):
    """The files of a folder tree, classes in order, and in each the files by name.

    Args:
      split: as in `Source`.
      files: the files; the folders are the classes.
      notes: as in `Source`.
      holdout: as in `Source`.

    Attributes:
      paths: the files as a sequence of `pathlib.Path`.
    """

    name = "folder"
    labels: np.ndarray

    def __init__(self, split: str, files: tree.Files, notes: list[str], holdout: str | None = None):
        self.split, self.paths, self.labels = split, files, files.labels
        self.classes = imagenet.readable(files.folders)
        self.notes, self.holdout = tuple(notes), holdout

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Example:
        return Example(self.paths.read(place), int(self.labels[place]))

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint.of_files(self.paths, self.classes)

    def ingredients(self, start: int, stop: int) -> str:
        return fingerprint.of_some_files(self.paths, range(start, stop))

    def where(self, place: int) -> str:
        return tree.printable(self.paths.path(place))


def open_data(config: Any, say: Callable[[str], None]) -> DataSet:
    """Offers the splits of the folder tree in `config.data.dir`: DIR/SPLIT/CLASS/FILE, or
    DIR/CLASS/FILE.

    Of a single folder of classes, `config.data.eval_fraction` of each class's files is the split
    "val", chosen as `config.data.holdout` says, and the rest is "train"; "all" is all of them, and
    without a fraction the only split. Class names are sorted, or the lines of DIR/classes.txt. A
    class may have no image in a split other than "train".

    Raises:
      UserError: the tree is none; in opening a split, a training class is empty, a folder is no
        class, or something cannot be read.
    """
    root, fraction = pathlib.Path(config.dir).expanduser(), config.eval_fraction
    present = [name for name in _SPLITS if (root / name).is_dir()]
    # A folder of images that is called "train" is a class.
    found = [name for name in present if _folders(root / name)]
    if found:
        names, notes = _classes(root, root / found[0]), []
        if fraction is not None:
            notes = [
                f"config.data.eval_fraction = {fraction} has no effect, since {root} has a folder"
                f" {found[0]}; data.dir={str(root / found[0])!r} would hold out of that"
            ]
        return DataSet(
            str(root),
            {name: functools.partial(_open, root / name, names, notes, say) for name in found},
            f"add one, or hold out a share of each class with data.dir={str(root / 'train')!r} and"
            " data.eval_fraction=0.1",
        )
    if fraction is None and present:
        raise UserError(
            f"{root / present[0]}: has no class folders; the tree is"
            f" {root / present[0]}/CLASS/IMAGE.jpg"
        )
    names = _classes(root, root)
    whole = {_WHOLE: functools.partial(_open, root, names, [], say, _WHOLE)}
    if fraction is None:
        return DataSet(
            str(root),
            whole,
            "make train and val folders, or hold out a share of its"
            f" {len(names)} classes with data.eval_fraction=0.1",
        )
    shares = {
        name: functools.partial(_open_share, root, name, config, say) for name in ("train", "val")
    }
    return DataSet(str(root), shares | whole)


def _open(
    split: pathlib.Path,
    names: list[str],
    notes: list[str],
    say: Callable[[str], None],
    name: str | None = None,
) -> FolderSource:
    name = name or split.name
    files, found = _scan(split, names, say, may_lack=name != "train")
    return FolderSource(name, files, notes + found)


def _open_share(
    root: pathlib.Path, name: str, config: Any, say: Callable[[str], None]
) -> FolderSource:
    files, notes = _scan(root, _classes(root, root), say)
    held, rule, lines = holdout.held_out(files, config.eval_fraction, config.holdout)
    files = files.chosen(held if name == "val" else ~held)
    return FolderSource(name, files, notes + lines, rule)


def _scan(
    split: pathlib.Path, names: list[str], say: Callable[[str], None], may_lack: bool = False
) -> tuple[tree.Files, list[str]]:
    unknown = sorted(set(_folders(split)) - set(names))
    if unknown:
        raise UserError(
            f"{tree.printable(str(split / unknown[0]))}: no class of the training folder or"
            " classes.txt; remove or rename it"
        )
    files, notes = tree.scan(split, names, say)
    empty = np.setdiff1d(np.arange(len(names)), files.labels)
    if len(empty) and not may_lack:
        raise UserError(
            f"{split / names[empty[0]]}: holds no images ({', '.join(tree.SUFFIXES)}); remove the"
            " class or fill it"
        )
    return files, notes


def _classes(root: pathlib.Path, split: pathlib.Path) -> list[str]:
    listed = root / "classes.txt"
    if listed.is_file():
        found = classes.read(listed)
        for name in found:
            if "/" in name or name in (".", ".."):
                raise UserError(f"{listed}: {name!r} is no folder's name; correct it")
        return found
    found = _folders(split)
    if not found:
        raise UserError(f"{split}: has no class folders; the tree is {split}/CLASS/IMAGE.jpg")
    for name in found:
        if tree.as_text(name) != name or len(name.splitlines()) != 1:
            raise UserError(
                f"{tree.printable(str(split / name))!r}: the name of this class folder is not UTF-8"
                " or takes several lines; rename it"
            )
    return found


def _folders(directory: pathlib.Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError as error:
        raise tree.cannot_be_read(str(directory), error) from error
