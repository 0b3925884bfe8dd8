"""From files to the batches that a step takes: source -> decode -> loader -> feed -> augment."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from resnet_jax.data.augment.pipeline import make_augment, make_normalise
from resnet_jax.data.augment.settings import resolve_augmentation
from resnet_jax.data.grid import save_grid
from resnet_jax.data.input_bound import diagnosis
from resnet_jax.data.loader import Loader
from resnet_jax.data.prefetch import Prefetcher
from resnet_jax.data.progressive import ProgressiveLoader, grown
from resnet_jax.data.settings import BEFORE, FIELDS, check, check_is_mounted
from resnet_jax.data.sources import table
from resnet_jax.data.sources.fingerprint import differences
from resnet_jax.data.sources.source import IN_MEMORY_BYTES, ArraySource, Source, count_shared

__all__ = [
    "BEFORE",
    "FIELDS",
    "ArraySource",
    "Loader",
    "Prefetcher",
    "ProgressiveLoader",
    "Source",
    "check",
    "check_is_mounted",
    "count_shared",
    "describe_changes",
    "diagnosis",
    "fingerprint",
    "grown",
    "make_augment",
    "make_normalise",
    "open_source",
    "resolve_augmentation",
    "save_grid",
]


# Listing a large tree takes minutes, and a start asks more than once.
_FINGERPRINTS: weakref.WeakKeyDictionary[Source, dict[str, Any]] = weakref.WeakKeyDictionary()


def fingerprint(source: Source) -> dict[str, Any]:
    """Returns what a split consists of, as data for JSON: one digest over names, labels and order
    (sizes too up to 50,000 files; of shards their lengths and sizes; of images in memory their
    bytes), and what a later comparison needs to say what has changed.

    Raises:
      UserError: a file of it is gone.
    """
    if source not in _FINGERPRINTS:
        _FINGERPRINTS[source] = source.fingerprint()
    return _FINGERPRINTS[source]


def describe_changes(old: Mapping[str, Any], source: Source) -> list[str]:
    """Returns a clause for each way in which a split is no longer what `fingerprint` returned.

    Args:
      old: what `fingerprint` returned, or what JSON made of it.
      source: the split as it is now.

    Returns:
      Such as "2 files added (cat/7.jpg; dog/3.jpg)"; none where nothing has changed.

    Raises:
      UserError: a file of it is gone.
    """
    return differences(old, fingerprint(source))


def open_source(config: Any, train: bool, say: Callable[[str], None] | None = None) -> Source:
    """Opens the training or the evaluation split of the data that `config` describes.

    Args:
      config: `config.data`.
      train: True for `config.train_split`, False for `config.eval_split`.
      say: told every few seconds how far the reading of a large folder tree is.

    Returns:
      The source; where the split has bounds, such as "train[:90%]", that part of it.

    Raises:
      UserError: the data is missing or broken, or the split does not exist.
    """
    source = table.open_split(config, train, say or (lambda line: None))
    if not train and config.mean is not None:
        # A network of grey images scores files of any kind.
        source.channels = len(config.mean)
    size = config.image_size if train else config.eval_size or config.image_size
    crops = train and resolve_augmentation(config, source).random_resized_crop
    if (
        isinstance(source, ArraySource)
        and size
        and not crops
        and source.bytes_at(size) <= IN_MEMORY_BYTES
    ):
        mode = "centre" if train else config.eval_crop_mode
        source = source.resized(size, config.interpolation, mode)
    return source
