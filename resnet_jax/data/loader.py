"""Batch number in, batch out."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from resnet_jax.data import settings, shuffle
from resnet_jax.data.augment.settings import resolve_augmentation
from resnet_jax.data.buffers import Buffers
from resnet_jax.data.images import decode
from resnet_jax.data.images.transform import Transform
from resnet_jax.data.pending import PendingBatch, Stopped
from resnet_jax.data.sources.source import Moments, Source, normalisation
from resnet_jax.data.sources.tree import named
from resnet_jax.errors import UserError

_ENCODED_SIZE = 224


class Loader:
    """The batches of a source, each a pure function of (seed, batch number).

    Training: batch b belongs to epoch b // len(loader); an epoch is its own permutation's first n
    // batch_size whole batches. With `config.data.repeats` each image stands there so many times,
    and the epoch, as long as ever, ends after a share of the images. Evaluation: every example
    once, in order; the last batch is filled up with rows whose mask is False.

    With `config.data.on_error` "skip" the row of an unreadable image is masked. In training it
    shows another image of the same epoch, the next readable one in the epoch's order, as if that
    were the file's content: a black row would move the statistics of BatchNorm.

    Args:
      source: where the examples are.
      config: `config.data`.
      batch_size: the global batch; evaluation rounds it up to a multiple of `pad_to`.
      seed: `config.seed`.
      train: whether this is for training.
      process_index, process_count: which contiguous share of each batch this process makes.
      pad_to: the number of devices that share a batch.
      say: told, one line at a time, what a person should know of the data, at once, and of each
        unreadable image that is skipped, from a decoding thread.

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
        # Evaluation may round up, since padding is masked; in training it would be another batch.
        self.batch_size = batch_size if train else -(-batch_size // pad_to) * pad_to
        self._config = config
        self._check(batch_size, process_count)
        share = self.batch_size // process_count
        self._share = slice(process_index * share, (process_index + 1) * share)
        self.image_shape = self._shape()
        decode.allow_pixels(config.max_pixels)
        self._transform = Transform(config, source, self.image_shape, seed, train)
        # Those that wait in the prefetcher, and a few that are being made or used.
        self._buffers = Buffers((share, *self.image_shape), keep=config.prefetch + 3)
        # Started by the first batch that needs it: sets in memory never do.
        self._pool: ThreadPoolExecutor | None = None
        self._threads = config.num_threads or decode.cores()
        self.skipped: dict[int, str] = {}
        self._say, self._saying = say or (lambda line: None), threading.Lock()
        for line in [*source.notes, *settings.without_effect(config, source, train)]:
            self._say(line)
        missing = source.missing_classes()
        if missing and not train:
            self._say(
                f"{source.split} is scored and has no image of {len(missing)} of the"
                f" {len(source.classes)} classes ({named(missing)})"
            )

    def _check(self, batch_size: int, process_count: int) -> None:
        source, config = self.source, self._config
        if self.batch_size % process_count:
            raise UserError(
                f"config.batch_size = {batch_size}: must be divisible by the {process_count}"
                " processes"
            )
        if not len(source):
            raise UserError(
                f"config.data: {source.name} {source.split} has no examples; choose another split"
            )
        # What follows spoils training alone: evaluation scores what is there.
        if not self.train:
            return
        if source.lacking_classes():
            raise UserError(
                f"config.data: the files of {source.name} lie class by class, and {source.split}"
                f" has none of {source.lacking_classes()} of the classes; take the whole split, or"
                " hold out a share of each class with eval_fraction: of shards, when they are"
                " prepared"
            )
        if len(source) < batch_size:
            raise UserError(
                f"config.batch_size = {batch_size}: more than the {len(source)} training examples"
                f" of {source.name} {source.split}; take at most {len(source)}"
            )
        if 4 * config.repeats > batch_size and config.repeats > 1:
            raise UserError(
                f"config.data.repeats = {config.repeats}: {batch_size} rows would show fewer than"
                f" four images; take at most {max(1, batch_size // 4)}, or a larger batch"
            )
        if config.flip_mode == "alternating" and not resolve_augmentation(config, source).flip:
            raise UserError(
                "config.data.flip_mode = 'alternating': flips are off for images in memory; set"
                " config.data.flip=True"
            )
        if (config.mixup or config.cutmix) and batch_size % 2:
            raise UserError(
                f"config.batch_size = {batch_size}: must be even, since mixup and CutMix work on"
                " pairs"
            )

    def __len__(self) -> int:
        """Returns the number of batches in an epoch, or in the whole evaluation split."""
        count = len(self.source)
        return count // self.batch_size if self.train else -(-count // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.begin(number).result()

    def begin(self, number: int, stopped: threading.Event | None = None) -> PendingBatch:
        """Sets the decoding threads to this process's share of a batch.

        A caller that begins the next batch before it asks for this one leaves no thread idle in
        between.

        Args:
          number: the batch's number, from 0; in training it counts on over the epochs.
          stopped: once set, the batch is given up.
        """
        epoch, step = divmod(number, len(self)) if self.train else (0, number)
        if not 0 <= step < len(self):
            raise IndexError(number)
        positions, copies = self._order(step)
        # From memory that is used again, which has one shape alone.
        return self._begin_at(positions, copies, epoch, stopped, self._buffers.take)

    def at(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples at `places`, int [n], of an evaluation split as a batch."""
        shape = (len(places), *self.image_shape)
        return self._begin_at(places, None, 0, None, lambda: np.empty(shape, np.uint8)).result()

    def _begin_at(
        self,
        positions: np.ndarray,
        copies: np.ndarray | None,
        epoch: int,
        stopped: threading.Event | None,
        memory: Callable[[], np.ndarray],
    ) -> PendingBatch:
        # Beyond the end are rows that only fill up the last batch.
        mask = positions < len(self.source)
        places = self._places(np.where(mask, positions, 0), epoch)
        if self.source.in_memory and self._transform.changes_nothing:
            images, labels = self.source.take(places)
            images[~mask], labels[~mask] = 0, 0
            batch = PendingBatch(images, labels, places, mask, epoch, positions, copies)
            if self.source.faults:
                self._mask_faults(batch)
            return batch
        labels = np.zeros(len(places), np.int32)
        images = memory()
        batch = PendingBatch(images, labels, places, mask, epoch, positions, copies)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        # Shared by the threads, each of which takes the next image when it is done with one.
        rows = iter(batch.rows_by_image())
        batch.fills = [
            self._pool.submit(self._fill, batch, rows, stopped or threading.Event())
            for _ in range(min(self._threads, len(places)))
        ]
        return batch

    def stretches(self, total: int) -> list[tuple[int, tuple[int, int, int]]]:
        """Returns (`total`, [H, W, C]): all batches have one shape; see `ProgressiveLoader`."""
        return [(total, self.image_shape)]

    def moments(self) -> Moments:
        """Returns (mean, standard deviation) per channel by which images are normalised."""
        return normalisation(self._config, self.source)

    def close(self) -> None:
        """Ends the decoding threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _places(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        if not self.train:
            return positions
        # A permutation that is computed place by place: no epoch's order is ever held in memory.
        return shuffle.permuted(positions, len(self.source), self.seed, epoch)

    def _shape(self) -> tuple[int, int, int]:
        own = self.source.image_shape
        size = self._config.image_size
        if not self.train:
            size = self._config.eval_size or size
        if own is not None and size is None:
            crops = (
                self.train and resolve_augmentation(self._config, self.source).random_resized_crop
            )
            if crops and own[0] != own[1]:
                raise UserError(
                    "config.data.image_size = None: crops at random are square, the images"
                    f" {own[0]} by {own[1]}; set it"
                )
            return own
        side = size or _ENCODED_SIZE
        return (side, side, own[2] if own else self.source.channels)

    def _order(self, step: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns this process's positions in the order of an epoch, and which copies they are."""
        first = step * self.batch_size
        if not self.train or self._config.repeats == 1:
            return np.arange(self._share.start, self._share.stop) + first, None
        rows = shuffle.spread(self.batch_size, self._config.repeats)[self._share] + first
        return np.divmod(rows, self._config.repeats)

    def _fill(
        self, batch: PendingBatch, images: Iterator[list[int]], stopped: threading.Event
    ) -> None:
        for rows in images:
            if stopped.is_set():
                raise Stopped
            if not batch.mask[rows[0]]:
                batch.images[rows] = 0
                continue
            place = int(batch.places[rows[0]])
            try:
                example = self.source[place]
                views = [batch.view(row) for row in rows]
                shown = self._transform(example.image, self.source.where(place), views)
                for row, pixels in zip(rows, shown, strict=True):
                    batch.images[row] = pixels
                batch.labels[rows] = example.label
            except decode.CorruptImageError as error:
                for row in rows:
                    self._mask_row(batch, row, error)

    def _mask_faults(self, batch: PendingBatch) -> None:
        for row, place in enumerate(batch.places.tolist()):
            if batch.mask[row] and place in self.source.faults:
                self._mask_row(batch, row, decode.CorruptImageError(self.source.faults[place]))

    def _mask_row(self, batch: PendingBatch, row: int, error: decode.CorruptImageError) -> None:
        self._leave_out(int(batch.places[row]), error)
        batch.mask[row], batch.labels[row] = False, 0
        batch.images[row] = self._substitute(batch, row) if self.train else 0

    def _substitute(self, batch: PendingBatch, row: int) -> np.ndarray:
        """Returns the next readable image of the epoch, with the draws of the row's own place."""
        for after in range(1, len(self.source)):
            position = (batch.positions[row] + after) % len(self.source)
            place = int(self._places(np.array([position]), batch.epoch)[0])
            # Known by now, so that a damaged file is not decoded again for every row.
            if place in self.skipped:
                continue
            try:
                image = self.source[place].image
                return self._transform(image, self.source.where(place), [batch.view(row)])[0]
            except decode.CorruptImageError as error:
                self._leave_out(place, error)
        raise self._too_many(next(iter(self.skipped.values())))

    def _leave_out(self, place: int, error: decode.CorruptImageError) -> None:
        """Notes an unreadable image; raises `error`, or a `UserError` where there are too many."""
        if self._config.on_error == "stop":
            raise error
        # Decoding threads come here side by side; each file is told once.
        with self._saying:
            if place not in self.skipped:
                self.skipped[place] = error.fault
                self._say(f"skipped {error.fault}")
            count, whole = len(self.skipped), len(self.source)
        if self._config.max_skipped == 1:  # whoever asked is told of each
            return
        if count == whole or count > max(1, self._config.max_skipped * whole):
            raise self._too_many(error.fault)

    def _too_many(self, fault: str) -> UserError:
        return UserError(
            f"config.data.max_skipped = {self._config.max_skipped:g}: {len(self.skipped):,} of the"
            f" {len(self.source):,} images of {self.source.name} {self.source.split} cannot be"
            f" read, such as {fault}; restore the files, or allow a larger share"
        )
