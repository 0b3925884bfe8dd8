"""From files to the batches that a step takes: source -> decode -> loader -> feed -> augment."""

from collections.abc import Callable
from typing import Any

from resnet_jax.data.augment.pipeline import make_augment
from resnet_jax.data.grid import save_grid
from resnet_jax.data.input_bound import diagnosis
from resnet_jax.data.loader import Loader
from resnet_jax.data.prefetch import Prefetcher
from resnet_jax.data.settings import BEFORE, FIELDS, check, check_is_mounted, resolve_augmentation
from resnet_jax.data.sources import table
from resnet_jax.data.sources.source import IN_MEMORY_BYTES, ArraySource, Source

__all__ = [
    "BEFORE",
    "FIELDS",
    "ArraySource",
    "Loader",
    "Prefetcher",
    "Source",
    "check",
    "check_is_mounted",
    "diagnosis",
    "make_augment",
    "open_source",
    "resolve_augmentation",
    "save_grid",
]


def open_source(
    config: Any, train: bool, seed: int, say: Callable[[str], None] = lambda line: None
) -> Source:
    """Opens the training or the evaluation split of the data that `config` describes.

    Args:
      config: `config.data`.
      train: True for `config.train_split`, False for `config.eval_split`.
      seed: of the run; no source of this package draws its images from it.
      say: told every few seconds how far the reading of a large folder tree is.

    Returns:
      The source; where the split has bounds, such as "train[:90%]", that part of it.

    Raises:
      UserError: the data is missing or broken, or the split does not exist.
    """
    source, size = table.open_split(config, train, say), config.image_size
    crops = train and resolve_augmentation(config, source).random_resized_crop
    if (
        isinstance(source, ArraySource)
        and size
        and not crops
        and source.bytes_at(size) <= IN_MEMORY_BYTES
    ):
        source = source.resized(size)
    return source
