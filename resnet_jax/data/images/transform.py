"""What one image goes through on the host: decode, crop, resize, policy."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.data.augment.settings import resolve_augmentation
from resnet_jax.data.images import decode, geometry
from resnet_jax.data.images.policies import make_policy
from resnet_jax.data.sources.source import Source, normalisation


class View(NamedTuple):
    """What the random choices of a row are a pure function of, beside the seed.

    Attributes:
      epoch: of the batch.
      index: the example's place in the source.
      copy: which of `data.repeats` views of it.
    """

    epoch: int
    index: int
    copy: int


class Transform:
    """From an image as a source gives it to a batch's rows.

    Args:
      config: `config.data`.
      source: the split.
      image_shape: [H, W, C] of the rows.
      seed: of the run.
      train: whether crops and policies are drawn.

    Attributes:
      changes_nothing: whether images that are decoded already come out as they are.
    """

    def __init__(
        self, config: Any, source: Source, image_shape: tuple[int, int, int], seed: int, train: bool
    ):
        self._shape, self._size = image_shape, image_shape[0]
        self._crops = train and resolve_augmentation(config, source).random_resized_crop
        self._is_own_size = source.image_shape == image_shape
        self._most_pixels = config.max_pixels
        # Bound once: a config's fields are slow to read.
        self._random_part = functools.partial(
            geometry.random_crop,
            scale=tuple(config.crop_scale),
            ratio=tuple(config.crop_ratio),
            seed=seed,
        )
        self._central_part = functools.partial(
            geometry.central_part,
            size=self._size,
            share=config.eval_crop if source.image_shape is None else 1.0,
            mode="centre" if train else config.eval_crop_mode,
        )
        self._parts = functools.partial(
            decode.parts,
            size=self._size,
            channels=image_shape[2],
            most_pixels=config.max_pixels,
            interpolation=config.interpolation,
        )
        self._policy = None
        if train:
            moments = functools.partial(normalisation, config, source)
            self._policy = make_policy(config, seed, image_shape, moments)
        self.changes_nothing = self._is_own_size and not self._crops and self._policy is None

    def __call__(
        self, image: bytes | np.ndarray, where: str, views: Sequence[View]
    ) -> list[np.ndarray]:
        """Returns each view of an image, uint8 [H, W, C]; its file is decoded once for all.

        Args:
          image: a file's bytes, or uint8 pixels.
          where: the file and record, for messages.
          views: what the choices are drawn for.

        Raises:
          CorruptImageError: the bytes are no image.
        """
        rows = self._shown(image, where, views)
        if self._policy is None:
            return rows
        return [self._policy(pixels, *view) for pixels, view in zip(rows, views, strict=True)]

    def _shown(
        self, image: bytes | np.ndarray, where: str, views: Sequence[View]
    ) -> list[np.ndarray]:
        if self._crops:
            choices = [functools.partial(self._random_part, **view._asdict()) for view in views]
            return self._parts(image, choices=choices, where=where, smooth_chroma=False)
        if self._is_own_size:
            pixels = decode.whole(image, self._shape, where, self._most_pixels)
        else:
            (pixels,) = self._parts(
                image, choices=[self._central_part], where=where, finest=decode.FINEST_IN_SCORING
            )
        return [pixels] * len(views)
