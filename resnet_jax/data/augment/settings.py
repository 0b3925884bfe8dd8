"""The fields of augmentation in training, and what those that are left open stand for."""

import dataclasses
from typing import Any

from resnet_jax.data.sources.source import Source
from resnet_jax.errors import UserError
from resnet_jax.fields import Field, Needs

POLICIES = ("randaugment", "trivialaugment_wide", "autoaugment")

_CROP = (Needs("random_resized_crop", (True, None)),)
_ERASING = (Needs("random_erasing"),)
_RANDAUGMENT = (Needs("policy", ("randaugment",)),)
FIELDS = {
    "random_resized_crop": Field(
        None, "None: on for sources of encoded files, off for others", bool
    ),
    "crop_scale": Field(
        (0.08, 1.0),
        "share of the area that a random crop covers",
        tuple[float, ...],
        above=0,
        at_most=1,
        needs=_CROP,
    ),
    "crop_ratio": Field(
        (3 / 4, 4 / 3),
        "width over height of a random crop",
        tuple[float, ...],
        above=0,
        at_most=100,
        needs=_CROP,
    ),
    "flip": Field(
        None, "mirror half of the images; None: on for encoded files, off for others", bool
    ),
    "flip_mode": Field(
        "random",
        "alternating: at random in the first epoch, then the other way round every epoch",
        choices=("random", "alternating"),
    ),
    "policy": Field(
        "none",
        "operations on colour and shape that are drawn for each image",
        choices=("none", *POLICIES),
    ),
    "policy_n": Field(
        2, "RandAugment: operations drawn for an image", at_least=1, at_most=16, needs=_RANDAUGMENT
    ),
    "policy_m": Field(
        9.0,
        "RandAugment: their magnitude, 10 the strongest",
        at_least=0,
        at_most=10,
        needs=_RANDAUGMENT,
    ),
    "policy_mstd": Field(
        0.0,
        "RandAugment: standard deviation of the magnitude, which is drawn for each operation",
        at_least=0,
        at_most=10,
        needs=_RANDAUGMENT,
    ),
    "policy_inc": Field(
        False,
        "RandAugment: every operation is stronger at a higher magnitude, as timm's inc1",
        needs=_RANDAUGMENT,
    ),
    "policy_probability": Field(
        0.5,
        "RandAugment: how often a drawn operation is applied; 0.5 in timm, 1 in the paper",
        above=0,
        at_most=1,
        needs=_RANDAUGMENT,
    ),
    "color_jitter": Field(
        (0.0, 0.0, 0.0, 0.0),
        "most by which brightness, contrast, saturation and hue change; 0: off",
        tuple[float, ...],
        at_least=0,
        at_most=1,
    ),
    "repeats": Field(
        1,
        "views of each image in a batch; an epoch then shows a share of the images",
        at_least=1,
        at_most=64,
    ),
    "pad_and_crop": Field(
        0, "pixels of black border to crop from at random", at_least=0, at_most=1024
    ),
    "random_erasing": Field(0.0, "probability of erasing a rectangle", at_least=0, at_most=1),
    "erasing_scale": Field(
        (0.02, 1 / 3),
        "share of the area that is erased",
        tuple[float, ...],
        above=0,
        at_most=1,
        needs=_ERASING,
    ),
    "erasing_ratio": Field(
        (0.3, 10 / 3),
        "height over width of the rectangle",
        tuple[float, ...],
        above=0,
        at_most=100,
        needs=_ERASING,
    ),
    "erasing_fill": Field(
        "zero",
        "what an erased pixel becomes, after normalising",
        choices=("zero", "noise"),
        needs=_ERASING,
    ),
    "mixup": Field(0.0, "alpha of mixup's Beta distribution; 0: off", at_least=0, at_most=100),
    "cutmix": Field(0.0, "alpha of CutMix's Beta distribution; 0: off", at_least=0, at_most=100),
    "mix_probability": Field(
        1.0,
        "share of images that mixup or CutMix touches",
        at_least=0,
        at_most=1,
        needs=(Needs("mixup"), Needs("cutmix")),
    ),
    "cutmix_share": Field(
        0.5,
        "with both on: how often CutMix is the one",
        at_least=0,
        at_most=1,
        needs=(Needs("cutmix"),),
    ),
}


def check(config: Any) -> None:
    """Checks the pairs and tuples of these fields, and which of them contradict each other.

    Args:
      config: `config.data`.

    Raises:
      UserError: a field does not fit the others; the message names it.
    """
    for field in ("crop_scale", "crop_ratio", "erasing_scale", "erasing_ratio"):
        low_high = tuple(getattr(config, field))
        if len(low_high) != 2 or low_high[0] > low_high[1]:
            raise UserError(f"config.data.{field} = {low_high!r}: must be (lowest, highest)")
    jitter = tuple(config.color_jitter)
    if len(jitter) != 4 or jitter[3] > 0.5:
        raise UserError(
            f"config.data.color_jitter = {jitter!r}: must be (brightness, contrast, saturation,"
            " hue), hue at most 0.5"
        )
    if config.flip_mode == "alternating":
        if config.flip is False:
            raise UserError(
                "config.data.flip_mode = 'alternating': config.data.flip is False; set it True"
            )
        if config.repeats > 1:
            raise UserError(
                f"config.data.flip_mode = 'alternating': with config.data.repeats ="
                f" {config.repeats} no image is shown in every epoch; take 'random', or repeats 1"
            )


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Which of the two augmentations that depend on the kind of the source are on in training."""

    random_resized_crop: bool
    flip: bool


def resolve_augmentation(config: Any, source: Source) -> Augmentation:
    """Says what None stands for: on for encoded files, off for images in memory."""
    encoded = source.image_shape is None
    return Augmentation(
        *(
            encoded if given is None else given
            for given in (config.random_resized_crop, config.flip)
        )
    )
