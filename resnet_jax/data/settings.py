"""The fields of `config.data`, and the checks that need more than one of them."""

import itertools
from typing import Any

from resnet_jax.data import splits
from resnet_jax.data.augment import settings as augment_settings
from resnet_jax.data.images import decode
from resnet_jax.data.images.resize import INTERPOLATIONS
from resnet_jax.data.sources import holdout, table
from resnet_jax.data.sources.source import Source
from resnet_jax.errors import UserError
from resnet_jax.fields import Field, Needs

_SYNTHETIC = (Needs("name", ("synthetic",)),)
FIELDS = {
    "name": Field(
        "digits", "one of this package's own sources, or a TFDS image-classification data set"
    ),
    "dir": Field(
        None, "the directory that holds the data; TFDS: None is its own default directory", str
    ),
    "train_split": Field(
        None, "the training split, for example 'train[:90%]'; None: the source's own", str
    ),
    "eval_split": Field(None, "the evaluation split; None: the source's own", str),
    "eval_fraction": Field(
        None, "the share held out from a folder without evaluation split", float, above=0, below=1
    ),
    "image_key": Field(None, "TFDS: the feature that is the image; None: the data set's own", str),
    "label_key": Field(None, "TFDS: the feature that is the label; None: the data set's own", str),
    "image_size": Field(
        None,
        "side in pixels; None: the source's own, 224 where files differ",
        int,
        at_least=1,
        at_most=8192,
    ),
    "progressive_sizes": Field(
        (),
        "training: sides in pixels that lead up to image_size, one after another",
        tuple[int, ...],
        at_least=1,
        at_most=8192,
    ),
    "progressive_epochs": Field(
        (),
        "the epochs at which each of them gives way to the next",
        tuple[float, ...],
        above=0,
        needs=(Needs("progressive_sizes"),),
    ),
    "eval_crop": Field(
        0.875,
        "share of the resized short side kept: in evaluation, and in training without random crops",
        float,
        above=0,
        at_most=1,
    ),
    "eval_size": Field(
        None, "evaluation: side in pixels; None: as image_size", int, at_least=1, at_most=8192
    ),
    "eval_crop_mode": Field(
        "centre",
        "evaluation: centre crops the resized image, squash one resized to a square",
        choices=("centre", "squash"),
    ),
    "interpolation": Field(
        "bilinear", "the filter that resizes, antialiased as Pillow's", choices=INTERPOLATIONS
    ),
    "holdout": Field(
        None,
        "what eval_fraction chooses files by; None: content under 2 GB, else class and name",
        str,
        choices=holdout.RULES,
        needs=(Needs("eval_fraction"),),
    ),
    "on_error": Field("stop", "what a corrupt image does to the run", choices=("stop", "skip")),
    "max_skipped": Field(
        0.01,
        "share of a split that on_error 'skip' may leave out",
        at_least=0,
        below=1,
        needs=(Needs("on_error", ("skip",)),),
    ),
    "max_pixels": Field(
        decode.MOST_PIXELS, "an image of more counts as corrupt", at_least=1, at_most=1 << 32
    ),
    "mean": Field(
        None,
        "per channel, of pixels in 0..1, a 255th of those in 0..255; None: the source's own",
        tuple[float, ...],
        at_least=0,
        at_most=1,
    ),
    "std": Field(
        None,
        "per channel, of pixels in 0..1, a 255th of those in 0..255; None: the source's own",
        tuple[float, ...],
        above=0,
        at_most=1,
    ),
    **augment_settings.FIELDS,
    "num_threads": Field(
        None, "threads that decode; None: one a core", int, at_least=1, at_most=1024
    ),
    "prefetch": Field(2, "batches made ahead", at_least=1, at_most=64),
    "synthetic_train": Field(
        1_281_167, "training images of the synthetic source", at_least=1, needs=_SYNTHETIC
    ),
    "synthetic_eval": Field(
        50_000, "evaluation images of the synthetic source", at_least=1, needs=_SYNTHETIC
    ),
    "synthetic_classes": Field(
        1000,
        "classes of the synthetic source",
        at_least=2,
        at_most=1_000_000,
        needs=_SYNTHETIC,
    ),
}

# What a recipe had in force that was saved before the field existed, where that is not the default.
BEFORE = {"holdout": "position"}


def check(config: Any) -> None:
    """Checks what one field's table cannot: names, split texts, pairs and the lengths of tuples.

    Args:
      config: `config.data`, every field of `FIELDS` present and of its type.

    Raises:
      UserError: a field does not fit the others; the message names it.
    """
    check_is_mounted("config.data.dir", config.dir)
    table.check(config.name, config.dir)
    for field in ("train_split", "eval_split"):
        text = getattr(config, field)
        if text is not None:
            splits.parse(text, field)
    if (config.mean is None) != (config.std is None):
        given, missing = ("std", "mean") if config.mean is None else ("mean", "std")
        raise UserError(
            f"config.data.{given} is set and config.data.{missing} is not: give both or neither"
        )
    if config.mean is not None and len(config.mean) != len(config.std):
        raise UserError(
            f"config.data.std = {tuple(config.std)!r}: must have one number a channel, as "
            "config.data.mean has "
            f"({len(config.mean)})"
        )
    augment_settings.check(config)
    _check_progressive(config)


def _check_progressive(config: Any) -> None:
    """Checks the sizes that come before `image_size`, and when they end."""
    sizes, epochs = tuple(config.progressive_sizes), tuple(config.progressive_epochs)
    if len(sizes) != len(epochs):
        raise UserError(
            f"config.data.progressive_epochs = {epochs!r}: must have one number for each of"
            f" progressive_sizes = {sizes!r}, the epoch at which it gives way to the next"
        )
    if not sizes:
        return
    if config.image_size is None:
        raise UserError(
            f"config.data.progressive_sizes = {sizes!r}: config.data.image_size must be set, the"
            " size that they lead up to"
        )
    for field, values in (
        ("progressive_sizes", (*sizes, config.image_size)),
        ("progressive_epochs", epochs),
    ):
        if any(later <= earlier for earlier, later in itertools.pairwise(values)):
            end = " up to image_size" if field == "progressive_sizes" else ""
            raise UserError(f"config.data.{field} = {values!r}: must increase{end}")


def without_effect(config: Any, source: Source, train: bool) -> list[str]:
    """Returns a line for each field that was set to what this use of a source does not read, where
    that depends on more than one other field, or on the source.

    Args:
      config: `config.data`.
      source: the split.
      train: whether it is trained on.
    """
    encoded, on = source.image_shape is None, augment_settings.resolve_augmentation(config, source)
    # Fields, whether they are read, and why not.
    if train:
        uses = [
            (("crop_scale", "crop_ratio"), on.random_resized_crop, "random_resized_crop is off"),
            (("cutmix_share",), config.mixup and config.cutmix, "mixup or cutmix is 0"),
            (("dir",), config.name not in ("digits", "synthetic"), "no directory is read"),
            (
                ("image_key", "label_key"),
                config.name not in table.SOURCES,
                "it is no TFDS set",
            ),
            (("eval_fraction",), config.name == "folder", "it holds out files of a folder"),
        ]
    else:
        uses = [(("eval_crop",), encoded, "the images are no encoded files of any size")]
    return [
        f"config.data.{field} = {config[field]!r} has no effect, since {reason} ({source.name})"
        for fields, is_read, reason in uses
        for field in fields
        if not is_read and config[field] != FIELDS[field].default
    ]


def check_is_mounted(name: str, directory: str | None) -> None:
    """Checks that a directory of data is not the address of a bucket.

    Args:
      name: the field or flag, for the message.
      directory: its value.

    Raises:
      UserError: it is.
    """
    if directory is not None and "://" in directory:
        raise UserError(
            f"{name} = {directory}: data is kept in local or mounted directories; copy it, or mount"
            " the bucket (gcsfuse, mount-s3) and name the mount"
        )
