"""Batch memory that is used again once nobody holds the batch any more."""

import threading
import weakref

import numpy as np


class Buffers:
    """Hands out uint8 arrays of one shape, and takes their memory back when the last reference is
    gone.

    A fresh array of tens of megabytes costs a page fault every 4 KiB. The arrays' memory belongs to
    `bytearray`s, so that every view of an array keeps that array alive; what a device or a caller
    still holds is therefore never handed out a second time.

    Args:
      shape: of every array.
      keep: how many free buffers are kept at the most.
    """

    def __init__(self, shape: tuple[int, ...], keep: int):
        self._shape, self._keep = shape, keep
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self) -> np.ndarray:
        """Returns an array of undefined content."""
        with self._lock:
            memory = self._free.pop() if self._free else None
        if memory is None:
            memory = bytearray(int(np.prod(self._shape)))
        flat = np.frombuffer(memory, np.uint8)
        weakref.finalize(flat, self._give_back, memory).atexit = False
        return flat.reshape(self._shape)

    def _give_back(self, memory: bytearray) -> None:
        # Without the lock: a garbage collection may call this while the same thread is in `take`,
        # and a list's append is atomic.
        if len(self._free) < self._keep:
            self._free.append(memory)
