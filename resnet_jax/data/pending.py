"""A batch while threads fill it."""

from concurrent.futures import Future

import numpy as np

from resnet_jax.data.images.transform import View


class Stopped(Exception):
    """A batch was given up because nobody wants it any more."""


class PendingBatch:
    """A batch in the making, see `Loader.begin`.

    Args:
      images: uint8 [n, H, W, C], to be filled.
      labels: int32 [n], to be filled.
      places: int64 [n], of the examples in the source.
      mask: bool [n]; rows that turn out unreadable become False.
      epoch: the batch's.
      positions: int64 [n], of the rows in the epoch's order.
      copies: int64 [n], which of `data.repeats` views of its image a row is; None: there is one.
    """

    def __init__(self, images, labels, places, mask, epoch: int, positions, copies):
        self.images, self.labels, self.places, self.mask = images, labels, places, mask
        self.epoch, self.positions, self.copies = epoch, positions, copies
        self.fills: list[Future] = []

    def view(self, row: int) -> View:
        """Returns what the random choices of a row are drawn for."""
        copy = 0 if self.copies is None else int(self.copies[row])
        return View(self.epoch, int(self.places[row]), copy)

    def rows_by_image(self) -> list[list[int]]:
        """Returns the rows that show one image, for each image."""
        if self.copies is None:
            return [[row] for row in range(len(self.places))]
        rows: dict[int, list[int]] = {}
        for row, place in enumerate(self.places.tolist()):
            rows.setdefault(place, []).append(row)
        return list(rows.values())

    def result(self) -> dict[str, np.ndarray]:
        """Waits for the batch and returns it.

        Returns:
          "image" uint8 [n, H, W, C], "label" int32 [n], "mask" bool [n] (False: not to be counted),
          "index" int32 [n] (the example's place in the source), "epoch" int32 [n]; where an image
          has several views, "copy" int32 [n] too.

        Raises:
          UserError: an example cannot be read, and `config.data.on_error` is "stop"; or too many
            cannot.
          Stopped: the batch was given up.
        """
        for fill in self.fills:
            fill.result()
        batch = {
            "image": self.images,
            "label": self.labels,
            "mask": self.mask,
            "index": self.places.astype(np.int32),
            "epoch": np.full(len(self.places), self.epoch, np.int32),
        }
        return batch if self.copies is None else {**batch, "copy": self.copies.astype(np.int32)}
