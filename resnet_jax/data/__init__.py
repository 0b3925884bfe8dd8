"""From files to the batches that a step takes: source -> decode -> loader -> feed -> augment."""

from typing import Any

from resnet_jax.data import splits
from resnet_jax.data.augment.pipeline import make_augment, make_normalise
from resnet_jax.data.grid import save_grid
from resnet_jax.data.input_bound import diagnosis
from resnet_jax.data.loader import Loader
from resnet_jax.data.prefetch import Prefetcher
from resnet_jax.data.settings import FIELDS, check, check_is_mounted
from resnet_jax.data.sources import cifar, digits, folder, idx, names, shards, synthetic, tfds
from resnet_jax.data.sources.source import IN_MEMORY_BYTES, ArraySource, Source

__all__ = [
    "FIELDS",
    "ArraySource",
    "Loader",
    "Prefetcher",
    "Source",
    "check",
    "check_is_mounted",
    "diagnosis",
    "make_augment",
    "make_normalise",
    "open_source",
    "save_grid",
]

_OPENERS = {
    "cifar": cifar.open_split,
    "digits": digits.open_split,
    "folder": folder.open_split,
    "idx": idx.open_split,
    "shards": shards.open_split,
    "synthetic": synthetic.open_split,
}


def open_source(config: Any, train: bool, seed: int) -> Source:
    """Opens the training or the evaluation split of the data that `config` describes.

    Args:
      config: `config.data`.
      train: True for `config.train_split`, False for `config.eval_split`.
      seed: unused by the sources of fixed files; sources that draw their images take it.

    Returns:
      The source; where the split has bounds, such as "train[:90%]", that part of it.

    Raises:
      UserError: the data is missing or broken, or the split does not exist.
    """
    names.check(config.name, config.dir)
    text = config.train_split if train else config.eval_split
    field = "train_split" if train else "eval_split"
    part = splits.parse(text, field) if text else None
    source = _OPENERS.get(config.name, tfds.open_split)(config, part and part.name, train)
    if part and str(part) != part.name:
        source = source.part(*part.bounds(len(source)), str(part))
    size, crops = config.image_size, train and config.random_resized_crop
    if (
        isinstance(source, ArraySource)
        and size
        and not crops
        and source.bytes_at(size) <= IN_MEMORY_BYTES
    ):
        source = source.resized(size)
    return source
