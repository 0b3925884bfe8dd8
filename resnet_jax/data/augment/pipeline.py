"""The last step, on the device inside the step: uint8 batches to images and targets."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import mixing, transforms
from resnet_jax.data.augment.settings import resolve_augmentation
from resnet_jax.data.sources.source import Source, normalisation
from resnet_jax.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int, Key, UInt32

Batch = Mapping[str, jax.Array]


def make_augment(
    config: Any, source: Source, num_classes: int, dtype: Any = jnp.float32
) -> Callable[[Batch, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the function from a loader's training batch to what the network and the loss take.

    It crops, mirrors, normalises, erases and mixes, as `config` says. All randomness is folded per
    example from (seed, epoch, index), so the result depends neither on the place in the batch (but
    for the partner of a mix) nor on the devices that share it.

    Args:
      config: `config.data`.
      source: gives mean and standard deviation where `config` leaves them open.
      num_classes: K, the width of the targets.
      dtype: of the images; the targets are float32, or of it where it is wider.

    Returns:
      A pure function: ({"image" uint8 [N, H, W, C], "label" int32 [N], "mask" bool [N], "index"
      int32 [N], "epoch" int32 [N]}, seed words uint32 [2]) -> (images [N, H, W, C], targets
      [N, K]).

    Raises:
      UserError: mean and standard deviation have another number of channels than the images.
    """
    normalise = make_normalise(config, source, dtype)
    # Eight bits of mantissa would round a mix's shares, which are probabilities.
    target_dtype = jnp.promote_types(dtype, jnp.float32)
    flips = resolve_augmentation(config, source).flip

    def augment(batch: Batch, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = batch["image"]
        targets = jax.nn.one_hot(batch["label"], num_classes, dtype=target_dtype)
        keys = example_keys(seed, batch["epoch"], batch["index"])
        if config.repeats > 1:
            keys = jax.vmap(jax.random.fold_in)(keys, batch["copy"])
        crop_keys, flip_keys, erase_keys, mix_keys = (
            jax.vmap(jax.random.fold_in, (0, None))(keys, use) for use in range(4)
        )
        if config.pad_and_crop:
            crop = functools.partial(transforms.pad_and_crop, pixels=config.pad_and_crop)
            images = jax.vmap(crop)(crop_keys, images)
        if flips and config.flip_mode == "alternating":
            first = example_keys(seed, jnp.zeros_like(batch["epoch"]), batch["index"])
            keys = jax.vmap(jax.random.fold_in, (0, None))(first, 1)
            images = jax.vmap(transforms.alternating_flip)(keys, images, batch["epoch"])
        elif flips:
            images = jax.vmap(transforms.random_flip)(flip_keys, images)
        images = normalise(images)
        if config.random_erasing:
            erase = functools.partial(transforms.random_erasing, **_erasing(config))
            images = jax.vmap(erase)(erase_keys, images)
        if config.mixup or config.cutmix:
            images, targets = mixing.mix(
                mix_keys, images, targets, batch["mask"], **_mixing(config)
            )
        return images, targets

    return augment


def make_normalise(
    config: Any, source: Source, dtype: Any = jnp.float32
) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from uint8 images [N, H, W, C] to normalised ones in `dtype`.

    Args:
      config: `config.data`.
      source: gives mean and standard deviation where `config` leaves them open.
      dtype: of the result.

    Raises:
      UserError: mean and standard deviation have another number of channels than the images.
    """
    mean, std = _moments(config, source)
    return lambda images: transforms.normalise(images, mean, std, dtype)


def example_keys(
    seed: "UInt32[jax.Array, '2']", epoch: "Int[jax.Array, ' n']", index: "Int[jax.Array, ' n']"
) -> "Key[jax.Array, ' n']":
    """Returns one key an example, folded from (seed, epoch, index).

    Args:
      seed: the low word first.
      epoch, index: of each example.
    """
    root = jax.random.fold_in(jax.random.key(seed[0], impl="threefry2x32"), seed[1])
    fold = jax.random.fold_in
    return jax.vmap(lambda e, i: fold(fold(root, e), i))(epoch, index)


def _moments(config: Any, source: Source) -> tuple[np.ndarray, np.ndarray]:
    mean, std = normalisation(config, source)
    channels = source.image_shape[2] if source.image_shape else source.channels
    if len(mean) != channels:
        raise UserError(
            f"config.data.mean = {tuple(mean)!r}: must have {channels} numbers, one a channel"
        )
    return np.asarray(mean, np.float64), np.asarray(std, np.float64)


def _erasing(config: Any) -> dict:
    return {
        "probability": config.random_erasing,
        "scale": tuple(config.erasing_scale),
        "ratio": tuple(config.erasing_ratio),
        "fill": config.erasing_fill,
    }


def _mixing(config: Any) -> dict:
    return {
        "mixup_alpha": config.mixup,
        "cutmix_alpha": config.cutmix,
        "probability": config.mix_probability,
        "cutmix_share": config.cutmix_share,
    }
