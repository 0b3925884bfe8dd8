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
_DAMAGE_ERRORS = (ValueError, TypeError, LookupError, EOFError, RuntimeError, MemoryError)
_DAMAGE_ERRORS += (zlib.error, zipfile.BadZipFile)


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
    readable = batch["mask"]
    return Thumbnails(*(batch[name][readable] for name in ("image", "label", "index")))


def keep(workdir: epath.PathLike, loader: data.Loader, count: int) -> str | None:
    """Writes some images of an evaluation split into a workdir, the same ones at each start.

    With a `count` of 0 those of an earlier start are removed.

    Returns:
      What went wrong, where they cannot be read, written or removed: no reason for a run to stop.
    """
    path = epath.Path(workdir) / FILE
    if not count:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            return f"the pictures in {path} cannot be removed: {error.strerror or error}"
        return None
    file = io.BytesIO()
    try:
        kept = take(loader, spread(count, len(loader.source)))
        np.savez_compressed(file, **kept._asdict())
        write_atomically(path, file.getvalue())
    except (OSError, UserError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        return f"no pictures are kept for a report without the data, in {FILE}: {why}"
    return None


def read(workdir: epath.PathLike) -> Thumbnails | None:
    """Returns the images that a run has kept; None where there are none, or they are damaged."""
    try:
        with np.load(io.BytesIO((epath.Path(workdir) / FILE).read_bytes())) as arrays:
            kept = Thumbnails(**{name: arrays[name] for name in Thumbnails._fields})
    except (OSError, *_DAMAGE_ERRORS):
        return None
    images, *others = kept
    is_whole = images.ndim == 4 and images.dtype == np.uint8 and len(images) > 0
    return kept if is_whole and all(rows.shape == images.shape[:1] for rows in others) else None
