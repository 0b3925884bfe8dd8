"""ImageNet's two tar files as published, read in place."""

import functools
import os
import pathlib
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np

from resnet_jax.data.sources import fingerprint, imagenet
from resnet_jax.data.sources.source import DataSet, Example, Source
from resnet_jax.errors import UserError

_TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}


class TarSource(Source):
    """Files inside an uncompressed tar, read by their place in it.

    Args:
      split: the split's name.
      path: the tar file.
      classes: the classes' names.
      files: (name, offset in bytes, size in bytes) of each example.
      labels: int [n].
    """

    labels: np.ndarray

    def __init__(
        self,
        split: str,
        path: pathlib.Path,
        classes: tuple[str, ...],
        files: list[tuple[str, int, int]],
        labels: np.ndarray,
    ):
        self.name, self.split, self.classes = "imagenet_tars", split, classes
        self._path, self._files, self.labels = path, files, labels
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, place: int) -> Example:
        _, offset, size = self._files[place]
        data = os.pread(self._file, size, offset)
        if len(data) != size:
            raise UserError(f"{self.where(place)}: the tar is cut off there; fetch it again")
        return Example(data, int(self.labels[place]))

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint.of_shards(
            [[self._path.name, len(self), self._path.stat().st_size]], self.classes
        )

    def where(self, place: int) -> str:
        return f"{self._path}, {self._files[place][0]}"


def open_data(config: Any, say: Callable[[str], None]) -> DataSet:
    """Offers "train" (the tar of one tar a class) and "val" (50,000 files, labelled by TFDS's list
    of their order) of the two tars in `config.data.dir`.

    Raises:
      UserError: in opening a split, its tar is missing or broken, or holds other files than
        ImageNet's.
    """
    directory = pathlib.Path(config.dir).expanduser()
    return DataSet(
        "ImageNet's tars", {name: functools.partial(_open, directory, name) for name in _TARS}
    )


def _open(directory: pathlib.Path, split: str) -> TarSource:
    path = directory / _TARS[split]
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; put ImageNet's {' and '.join(_TARS.values())} into one"
            " directory"
        )
    ids = _listed("labels.txt")
    read = _train_files if split == "train" else _validation_files
    try:
        files, labels = read(path, ids)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path}: is no readable tar ({error}); fetch it again") from error
    return TarSource(split, path, imagenet.readable(ids), files, np.array(labels, np.int32))


def _train_files(
    path: pathlib.Path, ids: list[str]
) -> tuple[list[tuple[str, int, int]], list[int]]:
    files, labels = [], []
    with tarfile.open(path, "r:") as outer:
        for member in sorted(outer.getmembers(), key=lambda member: member.name):
            wordnet_id = pathlib.PurePath(member.name).stem
            if wordnet_id not in ids:
                raise UserError(
                    f"{path}: {member.name} is no class of ImageNet; this is not {_TARS['train']}"
                )
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                found = sorted(inner.getmembers(), key=lambda file: file.name)
            files += [
                (file.name, member.offset_data + file.offset_data, file.size) for file in found
            ]
            labels += [ids.index(wordnet_id)] * len(found)
    return files, labels


def _validation_files(
    path: pathlib.Path, ids: list[str]
) -> tuple[list[tuple[str, int, int]], list[int]]:
    with tarfile.open(path, "r:") as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
    answers = _listed("validation_labels.txt")
    if len(members) != len(answers):
        raise UserError(f"{path}: holds {len(members)} files, not {len(answers)}; fetch it again")
    files = [(member.name, member.offset_data, member.size) for member in members]
    return files, [ids.index(answer) for answer in answers]


def _listed(file: str) -> list[str]:
    import tensorflow_datasets as tfds

    return tfds.core.tfds_path(f"datasets/imagenet2012/{file}").read_text().split()
