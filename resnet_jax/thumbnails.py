"""Some evaluation images that a run keeps, for a report after its data is gone.

They are kept as the network sees them, so that any checkpoint can be asked about them again.
"""

import io
import zipfile
import zlib
from typing import NamedTuple

import numpy as np
from etils import epath

from resnet_jax import data
from resnet_jax.errors import UserError
from resnet_jax.files import write_atomically

FILE = "thumbnails.npz"

# What reading an archive of arrays raises where the file holds something else.
_OF_DAMAGE = (ValueError, LookupError, EOFError, RuntimeError, MemoryError)
_OF_DAMAGE += (zlib.error, zipfile.BadZipFile)


class Thumbnails(NamedTuple):
    """Images uint8 [n, H, W, C], their labels int [n], and their places in the split, int [n]."""

    images: np.ndarray
    labels: np.ndarray
    places: np.ndarray


def spread(count: int, total: int) -> np.ndarray:
    """Returns `count` places, or all where there are fewer, at equal distances in a split."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


def take(loader: data.Loader, places: np.ndarray) -> Thumbnails:
    """Returns the images at places of an evaluation split, but for unreadable ones.

    Raises:
      UserError: an image cannot be read, and `config.data.on_error` is "stop".
    """
    batch = loader.at(places)
    seen = batch["mask"]
    return Thumbnails(batch["image"][seen], batch["label"][seen], batch["index"][seen])


def keep(workdir: epath.PathLike, loader: data.Loader, count: int) -> str | None:
    """Writes some images of an evaluation split into a workdir, the same ones at each start.

    Returns:
      Why there are none, where they cannot be read or written: no reason for a run to stop.
    """
    if not count:
        return None
    file = io.BytesIO()
    try:
        kept = take(loader, spread(count, len(loader.source)))
        np.savez_compressed(file, **kept._asdict())
        write_atomically(epath.Path(workdir) / FILE, file.getvalue())
    except (OSError, UserError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        return f"no pictures are kept for a report without the data, in {FILE}: {why}"
    return None


def read(workdir: epath.PathLike) -> Thumbnails | None:
    """Returns the images that a run has kept; None where there are none, or they are damaged."""
    try:
        with np.load(io.BytesIO((epath.Path(workdir) / FILE).read_bytes())) as arrays:
            kept = Thumbnails(**{name: arrays[name] for name in Thumbnails._fields})
    except (OSError, *_OF_DAMAGE):
        return None
    images, *others = kept
    is_whole = images.ndim == 4 and images.dtype == np.uint8 and len(images) > 0
    return kept if is_whole and all(rows.shape == images.shape[:1] for rows in others) else None
