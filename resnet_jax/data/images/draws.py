"""Random numbers of one view of one image, the same on every machine and in every thread."""

import math
import threading

import numpy as np

_BLOCK = 4  # words that Philox makes at once
_FETCHED = 4 * _BLOCK


class _Generator(threading.local):
    """A generator for each thread: setting its state takes a tenth of making another."""

    def __init__(self):
        self.philox = np.random.Philox(key=[0, 0])
        self.state = self.philox.state


_generator = _Generator()


class Draws:
    """Numbers of Philox (Salmon et al. 2011), a stream that NumPy promises to keep.

    Args:
      stream: what they are for; other draws of the same image are independent of them.
      seed, epoch, index, copy: what else they are a pure function of.
    """

    def __init__(self, stream: int, seed: int, epoch: int, index: int, copy: int = 0):
        self._key, self._counter = (seed, stream), (copy, epoch, index)
        self._words: list[int] = []  # fetched and not taken yet, the next one last
        self._blocks = 0

    def uniform(self) -> float:
        """Returns a number in [0, 1)."""
        if not self._words:
            self._fetch()
        return (self._words.pop() >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """Returns a whole number in 0 .. count - 1."""
        return int(self.uniform() * count)

    def sign(self) -> int:
        return 1 if self.uniform() < 0.5 else -1

    def normal(self) -> float:
        """Returns a standard normal number (Box and Muller 1958)."""
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return radius * math.cos(2 * math.pi * self.uniform())

    def _fetch(self) -> None:
        state = _generator.state
        state["state"]["key"][:] = self._key
        state["state"]["counter"][:] = (self._blocks, *self._counter)
        state["buffer_pos"] = _BLOCK  # nothing of the last block is left
        _generator.philox.state = state
        self._words = _generator.philox.random_raw(_FETCHED).tolist()[::-1]
        self._blocks += _FETCHED // _BLOCK
