"""Batch number in, batch out."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from resnet_jax.data import decode, geometry, order
from resnet_jax.data.buffers import Buffers
from resnet_jax.data.source import Moments, Source
from resnet_jax.errors import UserError

_ENCODED_SIZE = 224


class Stopped(Exception):
    """A batch was given up because nobody wants it any more."""


class Loader:
    """The batches of a source, each a pure function of (seed, batch number).

    Training: batch b belongs to epoch b // len(loader); an epoch is its own permutation's first
    n // batch_size whole batches. Evaluation: every example once, in order; the last batch is filled up with
    rows whose mask is False.

    Args:
      source: where the examples are.
      config: `config.data`.
      batch_size: the global batch; evaluation rounds it up to a multiple of `pad_to`.
      seed: `config.seed`.
      train: whether this is for training.
      process_index, process_count: which contiguous share of each batch this process makes.
      pad_to: the number of devices that share a batch.
      say: told once of each corrupt example that `config.data.on_error` "skip" leaves out, in one line with file
        and record; from a decoding thread, one call at a time.

    Attributes:
      skipped: the place of each example left out so far -> its file, record and fault.

    Raises:
      UserError: the training split is smaller than the batch, or the batch does not divide.
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
                f"config.batch_size = {batch_size}: must be divisible by the {process_count} processes"
            )
        if not len(source):
            raise UserError(
                f"config.data: {source.name} {source.split} has no examples; choose another split"
            )
        if train and len(source) < batch_size:
            raise UserError(
                f"config.batch_size = {batch_size}: more than the {len(source)} training examples of "
                f"{source.name} {source.split}; take at most {len(source)}"
            )
        if train and (config.mixup or config.cutmix) and batch_size % 2:
            raise UserError(
                f"config.batch_size = {batch_size}: must be even, since mixup and CutMix work on pairs"
            )
        share = self.batch_size // process_count
        self._share = slice(process_index * share, (process_index + 1) * share)
        self._config = config
        self._in_memory = hasattr(source, "take") and not (train and config.random_resized_crop)
        self.image_shape = self._shape()
        self._buffers = Buffers((share, *self.image_shape), keep=config.prefetch + 2)
        self._pool: ThreadPoolExecutor | None = None
        self._threads = config.num_threads or decode.cores()
        self.skipped: dict[int, str] = {}
        self._say, self._saying = say, threading.Lock()

    def __len__(self) -> int:
        """Returns the number of batches in an epoch, or in the whole evaluation split."""
        count = len(self.source)
        return count // self.batch_size if self.train else -(-count // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.read(number)

    def read(self, number: int, stopped: threading.Event | None = None) -> dict[str, np.ndarray]:
        """Makes this process's share of a batch.

        Args:
          number: the batch's number, from 0; in training it counts on over the epochs.
          stopped: once set, the batch is given up.

        Returns:
          "image" uint8 [n, H, W, C], "label" int32 [n], "mask" bool [n] (False: not to be counted), "index"
          int32 [n] (the example's place in the source), "epoch" int32 [n].

        Raises:
          UserError: an example cannot be read and `config.data.on_error` is "stop".
          Stopped: `stopped` was set.
        """
        epoch, places = self._places(number)
        mask = places >= 0
        places = np.where(mask, places, 0)
        if self._in_memory:
            images, labels = self.source.take(places)
            if not mask.all():
                images[~mask], labels[~mask] = 0, 0
        else:
            images, labels = self._decoded(places, mask, epoch, stopped or threading.Event())
        return {
            "image": images,
            "label": labels,
            "mask": mask,
            "index": places.astype(np.int32),
            "epoch": np.full(len(places), epoch, np.int32),
        }

    def moments(self) -> Moments:
        """Returns (mean, standard deviation) per channel by which images are normalised."""
        config = self._config
        return (config.mean, config.std) if config.mean is not None else self.source.moments()

    def close(self) -> None:
        """Ends the decoding threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _places(self, number: int) -> tuple[int, np.ndarray]:
        rows = np.arange(self._share.start, self._share.stop)
        if self.train:
            epoch, step = divmod(number, len(self))
            return epoch, order.permuted(rows + step * self.batch_size, len(self.source), self.seed, epoch)
        if not 0 <= number < len(self):
            raise IndexError(number)
        rows += number * self.batch_size
        return 0, np.where(rows < len(self.source), rows, -1)

    def _shape(self) -> tuple[int, int, int]:
        own = self.source.image_shape
        size = self._config.image_size
        if own is not None and size is None:
            return tuple(own)
        return (size or _ENCODED_SIZE, size or _ENCODED_SIZE, own[2] if own else 3)

    def _decoded(self, places, mask, epoch, stopped) -> tuple[np.ndarray, np.ndarray]:
        images = self._buffers.take()
        labels = np.zeros(len(places), np.int32)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")

        def fill(rows: range):
            for row in rows:
                if stopped.is_set():
                    raise Stopped
                self._fill(images, labels, mask, row, int(places[row]), epoch)

        workers = [range(first, len(places), self._threads) for first in range(self._threads)]
        for done in [self._pool.submit(fill, rows) for rows in workers]:
            done.result()
        return images, labels

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
        config, where = self._config, self.source.where(place)
        size = self.image_shape[0]
        own = self.source.image_shape
        crops = own is None if config.random_resized_crop is None else config.random_resized_crop
        if self.train and crops:
            choose = functools.partial(
                geometry.random_crop,
                scale=config.crop_scale,
                ratio=config.crop_ratio,
                seed=self.seed,
                epoch=epoch,
                index=place,
            )
            return decode.part(image, size, choose, where)
        if own is not None and tuple(own) == self.image_shape:
            return decode.whole(image, own, where)
        share = config.eval_crop if own is None else 1.0
        choose = functools.partial(geometry.central_part, size=size, share=share)
        # Twice as fine, so that the filter's antialiasing outweighs the scaled DCT's.
        return decode.part(image, size, choose, where, finest=2.0)
