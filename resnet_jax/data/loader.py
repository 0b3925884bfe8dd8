"""Batch number in, batch out."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from resnet_jax.data import shuffle
from resnet_jax.data.buffers import Buffers
from resnet_jax.data.images import decode, geometry
from resnet_jax.data.sources.source import Moments, Source, normalisation
from resnet_jax.errors import UserError

_ENCODED_SIZE = 224


class Stopped(Exception):
    """A batch was given up because nobody wants it any more."""


class Loader:
    """The batches of a source, each a pure function of (seed, batch number).

    Training: batch b belongs to epoch b // len(loader); an epoch is its own permutation's first n
    // batch_size whole batches. Evaluation: every example once, in order; the last batch is filled
    up with rows whose mask is False.

    Args:
      source: where the examples are.
      config: `config.data`.
      batch_size: the global batch; evaluation rounds it up to a multiple of `pad_to`.
      seed: `config.seed`.
      train: whether this is for training.
      process_index, process_count: which contiguous share of each batch this process makes.
      pad_to: the number of devices that share a batch.
      say: told once of each corrupt example that `config.data.on_error` "skip" leaves out, in one
        line with file and record; from a decoding thread, one call at a time.

    Attributes:
      skipped: the place of each example left out so far -> its file, record and fault.

    Raises:
      UserError: the split is empty; the training split is smaller than the batch, or lacks classes;
        the batch does not divide; or images that are not square are to be cropped at random and no
        size is set.
    """

    def __init__(
        self,
        source: Source,
        config: Any,
        *,
        batch_size: int,
        seed: int,
        train: bool,
        process_index: int = 0,
        process_count: int = 1,
        pad_to: int = 1,
        say: Callable[[str], None] | None = None,
    ):
        self.source, self.train, self.seed = source, train, seed
        self.batch_size = batch_size if train else -(-batch_size // pad_to) * pad_to
        if self.batch_size % process_count:
            raise UserError(
                f"config.batch_size = {batch_size}: must be divisible by the {process_count}"
                " processes"
            )
        if not len(source):
            raise UserError(
                f"config.data: {source.name} {source.split} has no examples; choose another split"
            )
        if train and source.lacking_classes():
            raise UserError(
                f"config.data: the files of {source.name} lie class by class, and {source.split}"
                f" has none of {source.lacking_classes()} of the classes; take the whole split, or"
                " hold out a share of each class with eval_fraction: of shards, when they are"
                " prepared"
            )
        if train and len(source) < batch_size:
            raise UserError(
                f"config.batch_size = {batch_size}: more than the {len(source)} training examples"
                f" of {source.name} {source.split}; take at most {len(source)}"
            )
        if train and (config.mixup or config.cutmix) and batch_size % 2:
            raise UserError(
                f"config.batch_size = {batch_size}: must be even, since mixup and CutMix work on"
                " pairs"
            )
        share = self.batch_size // process_count
        self._share = slice(process_index * share, (process_index + 1) * share)
        self._config = config
        encoded = source.image_shape is None
        crops = encoded if config.random_resized_crop is None else config.random_resized_crop
        self._crops = train and crops
        self.image_shape = self._shape()
        self._is_own_size = not encoded and tuple(source.image_shape) == self.image_shape
        self._in_memory = hasattr(source, "take") and not self._crops and self._is_own_size
        # Bound once: a config's fields are slow to read.
        self._random_part = functools.partial(
            geometry.random_crop, scale=tuple(config.crop_scale), ratio=tuple(config.crop_ratio)
        )
        self._central_part = functools.partial(
            geometry.central_part,
            size=self.image_shape[0],
            share=config.eval_crop if encoded else 1.0,
        )
        self._buffers = Buffers((share, *self.image_shape), keep=config.prefetch + 3)
        self._pool: ThreadPoolExecutor | None = None
        self._threads = config.num_threads or decode.cores()
        self.skipped: dict[int, str] = {}
        self._say, self._saying = say, threading.Lock()

    def __len__(self) -> int:
        """Returns the number of batches in an epoch, or in the whole evaluation split."""
        count = len(self.source)
        return count // self.batch_size if self.train else -(-count // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.begin(number)()

    def begin(
        self, number: int, stopped: threading.Event | None = None
    ) -> Callable[[], dict[str, np.ndarray]]:
        """Sets the decoding threads to this process's share of a batch.

        A caller that begins the next batch before it asks for this one leaves no thread idle in
        between.

        Args:
          number: the batch's number, from 0; in training it counts on over the epochs.
          stopped: once set, the batch is given up.

        Returns:
          A function that waits for the batch and returns it: "image" uint8 [n, H, W, C], "label"
          int32 [n], "mask" bool [n] (False: not to be counted), "index" int32 [n] (the example's
          place in the source), "epoch" int32 [n]. It raises UserError if an example cannot be read
          and `config.data.on_error` is "stop", and Stopped if `stopped` was set.
        """
        epoch, places = self._places(number)
        mask = places >= 0
        places = np.where(mask, places, 0)
        if self._in_memory:
            made = functools.partial(self._taken, places, mask)
        else:
            made = self._decoding(places, mask, epoch, stopped or threading.Event())

        def finish() -> dict[str, np.ndarray]:
            images, labels = made()
            return {
                "image": images,
                "label": labels,
                "mask": mask,
                "index": places.astype(np.int32),
                "epoch": np.full(len(places), epoch, np.int32),
            }

        return finish

    def moments(self) -> Moments:
        """Returns (mean, standard deviation) per channel by which images are normalised."""
        return normalisation(self._config, self.source)

    def close(self) -> None:
        """Ends the decoding threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _places(self, number: int) -> tuple[int, np.ndarray]:
        rows = np.arange(self._share.start, self._share.stop)
        if self.train:
            epoch, step = divmod(number, len(self))
            return epoch, shuffle.permuted(
                rows + step * self.batch_size, len(self.source), self.seed, epoch
            )
        if not 0 <= number < len(self):
            raise IndexError(number)
        rows += number * self.batch_size
        return 0, np.where(rows < len(self.source), rows, -1)

    def _shape(self) -> tuple[int, int, int]:
        own = self.source.image_shape
        size = self._config.image_size
        if own is not None and size is None:
            if self._crops and own[0] != own[1]:
                raise UserError(
                    "config.data.image_size = None: crops at random are square, the images"
                    f" {own[0]} by {own[1]}; set it"
                )
            return tuple(own)
        return (size or _ENCODED_SIZE, size or _ENCODED_SIZE, own[2] if own else 3)

    def _taken(self, places: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self.source.take(places)
        if not mask.all():
            images[~mask], labels[~mask] = 0, 0
        return images, labels

    def _decoding(
        self, places, mask, epoch, stopped
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        images = self._buffers.take()
        labels = np.zeros(len(places), np.int32)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        # Shared by the threads, each of which takes the next row when it is done with one.
        rows = enumerate(places.tolist())

        def fill():
            for row, place in rows:
                if stopped.is_set():
                    raise Stopped
                self._fill(images, labels, mask, row, place, epoch)

        fills = [self._pool.submit(fill) for _ in range(min(self._threads, len(places)))]

        def finish() -> tuple[np.ndarray, np.ndarray]:
            for done in fills:
                done.result()
            return images, labels

        return finish

    def _fill(self, images, labels, mask, row: int, place: int, epoch: int) -> None:
        if not mask[row]:
            images[row] = 0
            return
        try:
            example = self.source[place]
            images[row] = self._transformed(example.image, place, epoch)
            labels[row] = example.label
        except decode.CorruptImageError as error:
            if self._config.on_error == "stop":
                raise
            self._skip(place, error.fault)
            images[row], mask[row] = 0, False

    def _skip(self, place: int, fault: str) -> None:
        with self._saying:
            if place in self.skipped:
                return
            self.skipped[place] = fault
            if self._say is not None:
                self._say(f"skipped {fault}")

    def _transformed(self, image: bytes | np.ndarray, place: int, epoch: int) -> np.ndarray:
        size, where = self.image_shape[0], self.source.where(place)
        if self._crops:
            choose = functools.partial(self._random_part, seed=self.seed, epoch=epoch, index=place)
            return decode.part(
                image, size, choose, where, smooth_chroma=False, channels=self.image_shape[2]
            )
        if self._is_own_size:
            return decode.whole(image, self.image_shape, where)
        # Twice as fine, so that the filter's antialiasing outweighs the scaled DCT's.
        return decode.part(
            image, size, self._central_part, where, finest=2.0, channels=self.image_shape[2]
        )
