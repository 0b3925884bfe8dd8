"""The last step, on the device and inside the jitted step: uint8 batches become images and
targets.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import mixing, transforms
from resnet_jax.data.sources.source import Source, normalisation
from resnet_jax.errors import UserError


def make_augment(
    config: Any,
    source: Source,
    train: bool,
    num_classes: int,
    seed: int,
    dtype: Any = jnp.float32,
) -> Callable[[dict], tuple[jax.Array, jax.Array]]:
    """Returns the function from a loader's batch to what the network and the loss take.

    In training it crops, mirrors, normalises, erases and mixes, as `config` says; in evaluation it
    normalises. All randomness is folded per example from (seed, epoch, index), so the result
    depends neither on the place in the batch (but for the partner of a mix) nor on the devices that
    share it.

    Args:
      config: `config.data`.
      source: gives mean and standard deviation where `config` leaves them open.
      train: whether to augment.
      num_classes: K, the width of the targets.
      seed: `config.seed`.
      dtype: of the images; the targets are float32, or of it where it is wider.

    Returns:
      A pure function: {"image" uint8 [N, H, W, C], "label" int32 [N], "mask" bool [N], "index"
      int32 [N], "epoch" int32 [N]} -> (images [N, H, W, C], targets [N, K]).

    Raises:
      UserError: mean and standard deviation have another number of channels than the images.
    """
    mean, std = _moments(config, source)
    # Eight bits of mantissa would round a mix's shares, which are probabilities.
    target_dtype = jnp.promote_types(dtype, jnp.float32)
    flips = source.image_shape is None if config.flip is None else config.flip

    def augment(batch: dict) -> tuple[jax.Array, jax.Array]:
        images = batch["image"]
        targets = jax.nn.one_hot(batch["label"], num_classes, dtype=target_dtype)
        if not train:
            return transforms.normalise(images, mean, std, dtype), targets
        keys = example_keys(seed, batch["epoch"], batch["index"])
        crop_keys, flip_keys, erase_keys, mix_keys = (
            jax.vmap(jax.random.fold_in, (0, None))(keys, use) for use in range(4)
        )
        if config.pad_and_crop:
            images = jax.vmap(lambda k, x: transforms.pad_and_crop(k, x, config.pad_and_crop))(
                crop_keys, images
            )
        if flips:
            images = jax.vmap(transforms.random_flip)(flip_keys, images)
        images = transforms.normalise(images, mean, std, dtype)
        if config.random_erasing:
            images = jax.vmap(lambda k, x: transforms.random_erasing(k, x, **_erasing(config)))(
                erase_keys, images
            )
        if config.mixup or config.cutmix:
            images, targets = mixing.mix(
                mix_keys, images, targets, batch["mask"], **_mixing(config)
            )
        return images, targets

    return augment


def example_keys(seed: int, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """Returns one key an example, folded from (seed, epoch, index); the last two are int32 [N]."""
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    root = jax.random.fold_in(jax.random.key(np.uint32(low), impl="threefry2x32"), np.uint32(high))
    return jax.vmap(lambda e, i: jax.random.fold_in(jax.random.fold_in(root, e), i))(epoch, index)


def _moments(config: Any, source: Source) -> tuple[np.ndarray, np.ndarray]:
    mean, std = normalisation(config, source)
    channels = source.image_shape[2] if source.image_shape else 3
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
