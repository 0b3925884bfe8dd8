"""Training images that grow with the epochs: loaders of several sizes, one after another."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from resnet_jax.data.loader import Loader
from resnet_jax.data.pending import PendingBatch


class ProgressiveLoader:
    """A training loader of several sizes, each batch of which is a pure function of its number.

    But for their size the images are those that a loader of one size makes: the same ones in the
    same order, with the same draws.

    Args:
      loaders: of the sizes in turn; they read the same examples.
      ends: for all but the last the epoch at which it gives way, which may be a fraction.

    Attributes:
      source, image_shape: as `Loader` has them; the shape is that of the last.
      skipped: as `Loader` has it, of all sizes together.
    """

    def __init__(self, loaders: Sequence[Loader], ends: Sequence[float]):
        last = loaders[-1]
        self.source = last.source
        self.image_shape, self.skipped = last.image_shape, last.skipped
        for loader in loaders:
            loader.skipped = self.skipped
        self._loaders = loaders
        self._ends = [round(epoch * len(last)) for epoch in ends]

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return len(self._loaders[-1])

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.begin(number).result()

    def begin(self, number: int, stopped: threading.Event | None = None) -> PendingBatch:
        """Sets the decoding threads to a batch; see `Loader.begin`."""
        current = sum(number >= end for end in self._ends)
        return self._loaders[current].begin(number, stopped)

    def stretches(self, total: int) -> list[tuple[int, tuple[int, int, int]]]:
        """Returns the shapes [H, W, C] in turn, each with the first batch that is not of it.

        Args:
          total: the number of batches in all.
        """
        ends = [min(end, total) for end in self._ends] + [total]
        shapes = [loader.image_shape for loader in self._loaders]
        return [
            (end, shape)
            for begin, end, shape in zip([0, *ends], ends, shapes, strict=False)
            if begin < end
        ]

    def moments(self) -> Any:
        """Returns what images are normalised by; see `Loader.moments`."""
        return self._loaders[-1].moments()

    def close(self) -> None:
        """Ends the decoding threads."""
        for loader in self._loaders:
            loader.close()


def grown(
    open_at: Callable[[int | None, Callable[[str], None] | None], Loader],
    config: Any,
    say: Callable[[str], None] | None,
) -> Loader | ProgressiveLoader:
    """Opens a training loader of the sizes that a recipe asks for.

    Args:
      open_at: (side in pixels, None for the recipe's own; say) -> a loader.
      config: `config.data`.
      say: told what a person should know of the data, each line once.
    """
    if not config.progressive_sizes:
        return open_at(None, say)
    told: set[str] = set()

    def say_once(line: str) -> None:
        if say is not None and line not in told:
            told.add(line)
            say(line)

    sizes = [*config.progressive_sizes, None]
    return ProgressiveLoader(
        [open_at(size, say_once) for size in sizes], tuple(config.progressive_epochs)
    )
