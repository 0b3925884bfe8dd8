"""Directories of IDX files, plain or .gz: MNIST, Fashion-MNIST, KMNIST, EMNIST and their like.

The format is described on the MNIST page (Y. LeCun, C. Cortes, C. Burges): two zero bytes, a type
byte (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit number,
then the values.
"""

import functools
import gzip
import math
import pathlib
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from resnet_jax.data.sources import classes
from resnet_jax.data.sources.source import ArraySource, DataSet, Moments, measure
from resnet_jax.errors import UserError

_SPLITS = {"train": ("train",), "test": ("t10k", "test")}
# Deflate cannot shrink below 1/1032 of the original (zlib's technical notes), so a header that
# promises more than that is false and nothing needs to be read.
_MOST_SHRUNK = 1032
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# CRC-32 of the label bytes. MNIST, KMNIST and Fashion-MNIST share file names and shapes; only the
# labels tell.
_FASHION_LABELS = (0x2ED6E46A, 0x242BC73F)


def open_data(config: Any, say: Callable[[str], None]) -> DataSet:
    """Offers "train" and "test" of the IDX files in `config.data.dir`: uint8 images [n, H, W, C] in
    memory; files of three dimensions have one channel.

    Class names are the lines of `classes.txt` in the directory, where there is one; else
    Fashion-MNIST's, when its labels are recognised; else the labels' digits.

    Raises:
      UserError: in opening a split, a file is missing, truncated or of another kind, or images and
        labels do not fit.
    """
    directory = pathlib.Path(config.dir).expanduser()
    return DataSet(
        "IDX files", {name: functools.partial(_open, directory, name) for name in _SPLITS}
    )


def _open(directory: pathlib.Path, split: str) -> ArraySource:
    images = _images(directory, split)
    labels = read(_find(directory, split, "labels"), (1,))
    names = _classes(directory, labels, split)
    moments = functools.partial(_moments, directory)
    return ArraySource("idx", split, names, images, labels, moments)


def _images(directory: pathlib.Path, split: str) -> np.ndarray:
    path = _find(directory, split, "images")
    images = read(path, (3, 4))
    if 0 in images.shape:
        raise UserError(f"{path}: holds no images (shape {images.shape}); fetch it again")
    return images if images.ndim == 4 else images[..., None]


def read(path: pathlib.Path, dimensions: tuple[int, ...]) -> np.ndarray:
    """Reads one IDX file of unsigned bytes.

    Args:
      path: the file; a name that ends in .gz is unpacked.
      dimensions: the legal numbers of dimensions.

    Raises:
      UserError: the file is no such file, or shorter or longer than its header says.
    """
    try:
        packed_size = path.stat().st_size
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            shape = _shape(path, file, dimensions)
            count = math.prod(shape)
            if count > packed_size * (_MOST_SHRUNK if path.suffix == ".gz" else 1):
                raise UserError(
                    f"{path}: {packed_size} bytes cannot hold its {shape} values; fetch it again"
                )
            values = file.read(count + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); fetch the file again") from error
    if len(values) != count:
        state = "more bytes" if len(values) > count else f"only {len(values)} bytes"
        raise UserError(
            f"{path}: its header says {shape}, {count} bytes, but it holds {state}; fetch it again"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def _shape(path: pathlib.Path, file, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4:
        raise UserError(f"{path}: is empty or cut off inside its header; fetch the file again")
    zero, kind, count = struct.unpack(">HBB", magic)
    if zero != 0 or kind != 8 or count not in dimensions:
        raise UserError(
            f"{path}: begins with {magic.hex()}, not with an IDX header of unsigned bytes in "
            f"{' or '.join(map(str, dimensions))} dimensions; fetch it again"
        )
    sizes = file.read(4 * count)
    if len(sizes) < 4 * count:
        raise UserError(f"{path}: is cut off inside its header; fetch the file again")
    return struct.unpack(f">{count}I", sizes)


def _find(directory: pathlib.Path, split: str, part: str) -> pathlib.Path:
    found = sorted(
        path
        for path in directory.glob(f"*{part}*idx*")
        if any(word in path.name[: path.name.index(part)] for word in _SPLITS[split])
    )
    # A file beside its own .gz is the same data.
    found = [path for path in found if path.with_suffix("") not in found or path.suffix != ".gz"]
    if len(found) != 1:
        example = f"{_SPLITS[split][0]}-{part}-idx{3 if part == 'images' else 1}-ubyte.gz"
        state = (
            f"several files of {split} {part}: {', '.join(p.name for p in found)}"
            if found
            else "no such file"
        )
        raise UserError(
            f"config.data.dir = {str(directory)!r}: {state}; it needs one named like {example} "
            "(MNIST and its kin are published so; Debian: apt install dataset-fashion-mnist)"
        )
    return found[0]


def _classes(directory: pathlib.Path, labels: np.ndarray, split: str) -> tuple[str, ...]:
    listed = directory / "classes.txt"
    if listed.is_file():
        return tuple(classes.read(listed))
    if zlib.crc32(labels.tobytes()) in _FASHION_LABELS:
        return _FASHION_CLASSES
    known = labels if split == "train" else read(_find(directory, "train", "labels"), (1,))
    if len(known) and known.min() > 0:
        raise UserError(
            f"{directory}: labels run from {known.min()} to {known.max()}, not from 0; write a "
            "classes.txt with "
            f"one line for each of 0..{known.max()} into the directory"
        )
    return tuple(str(label) for label in range(int(known.max(initial=0)) + 1))


@functools.lru_cache(maxsize=8)
def _moments(directory: pathlib.Path) -> Moments:
    return measure(_images(directory, "train"))
