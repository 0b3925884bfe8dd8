"""CIFAR-10 and CIFAR-100 in their published binary and Python forms (A. Krizhevsky, 2009)."""

import functools
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from resnet_jax.data.sources import classes
from resnet_jax.data.sources.source import ArraySource, DataSet, Moments, measure
from resnet_jax.errors import UserError

_PIXELS = 3 * 32 * 32
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
# Form -> (files of each split, file of class names, key of the names, labels before the pixels).
_FORMS = {
    "binary CIFAR-10": (
        {split: [f"{name}.bin" for name in files] for split, files in _BATCHES.items()},
        "batches.meta.txt",
        None,
        1,
    ),
    "Python CIFAR-10": (_BATCHES, "batches.meta", "label_names", 0),
    "binary CIFAR-100": (
        {"train": ["train.bin"], "test": ["test.bin"]},
        "fine_label_names.txt",
        None,
        2,
    ),
    "Python CIFAR-100": ({"train": ["train"], "test": ["test"]}, "meta", "fine_label_names", 0),
}


class _ArraysOnly(pickle.Unpickler):
    """Reads what the published files hold and refuses to call anything else."""

    _ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def open_data(config: Any, say: Callable[[str], None]) -> DataSet:
    """Finds the CIFAR files in `config.data.dir`, of whichever form they are: uint8 images
    [n, 32, 32, 3] in memory. CIFAR-100 has its 100 fine classes.

    Raises:
      UserError: no form is there completely; in opening a split, a file is not what it should be.
    """
    directory, form = _find(pathlib.Path(config.dir).expanduser())
    return DataSet(
        "CIFAR", {name: functools.partial(_open, directory, form, name) for name in _BATCHES}
    )


def _open(directory: pathlib.Path, form: str, split: str) -> ArraySource:
    images, labels = _load(directory, form, split)
    moments = functools.partial(_moments, directory, form)
    return ArraySource("cifar", split, _classes(directory, form), images, labels, moments)


def _find(root: pathlib.Path) -> tuple[pathlib.Path, str]:
    subdirectories = (
        "",
        "cifar-10-batches-bin",
        "cifar-10-batches-py",
        "cifar-100-binary",
        "cifar-100-python",
    )
    found = [
        (directory, form)
        for directory in (root / name for name in subdirectories)
        for form, (files, names, _, _) in _FORMS.items()
        if all((directory / file).is_file() for file in [*files["train"], *files["test"], names])
    ]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{form} in {directory}" for directory, form in found)
        raise UserError(
            f"config.data.dir = {str(root)!r}: holds {several}; name the directory of one, or move"
            " the others away"
        )
    raise UserError(
        f"config.data.dir = {str(root)!r}: not all files of any form of CIFAR-10 or CIFAR-100;"
        " unpack cifar-10-binary.tar.gz, cifar-10-python.tar.gz, cifar-100-binary.tar.gz or"
        " cifar-100-python.tar.gz there"
    )


def _load(directory: pathlib.Path, form: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    files, _, _, ahead = _FORMS[form]
    read = functools.partial(_binary, ahead=ahead) if ahead else _python
    parts = [read(directory / file) for file in files[split]]
    pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _binary(path: pathlib.Path, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.fromfile(path, np.uint8)
    if not len(values) or len(values) % (ahead + _PIXELS):
        raise UserError(
            f"{path}: {len(values)} bytes are no whole number of CIFAR records; unpack it again"
        )
    records = values.reshape(-1, ahead + _PIXELS)
    return records[:, ahead:], records[:, ahead - 1].astype(np.int32)


def _python(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    content = _unpickled(path)
    labels = content.get(b"fine_labels", content.get(b"labels"))
    pixels = content.get(b"data")
    if labels is None or not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise UserError(f"{path}: has no CIFAR data and labels; unpack it again")
    if pixels.shape != (len(labels), _PIXELS):
        raise UserError(
            f"{path}: {len(labels)} labels but data of shape {pixels.shape}; unpack it again"
        )
    return pixels, np.array(labels, np.int32)


def _unpickled(path: pathlib.Path) -> dict:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
    # A broken pickle raises almost anything.
    except Exception as error:
        raise UserError(f"{path}: is no CIFAR file ({error}); unpack it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no CIFAR file; unpack it again")
    return content


def _classes(directory: pathlib.Path, form: str) -> tuple[str, ...]:
    _, file, key, _ = _FORMS[form]
    if key is None:
        return tuple(classes.read(directory / file))
    return tuple(name.decode() for name in _unpickled(directory / file)[key.encode()])


@functools.lru_cache(maxsize=4)
def _moments(directory: pathlib.Path, form: str) -> Moments:
    return measure(_load(directory, form, "train")[0])
