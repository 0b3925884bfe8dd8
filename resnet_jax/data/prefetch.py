"""Batches made ahead of the step that uses them."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from resnet_jax.data.loader import Loader
from resnet_jax.data.pending import PendingBatch, Stopped


class Prefetcher:
    """Iterates (batch number, put(batch)) for start <= batch number < stop, made ahead by one
    thread.

    Args:
      loader: makes the batches.
      start, stop: the batch numbers.
      put: moves a host batch to the devices.
      prefetch: how many batches wait at the most.

    Attributes:
      wait: seconds that the consumer has spent waiting.
      busy: seconds that making batches has taken, `put` included; not what is made of the next one
        while a finished one waits for the consumer.
      made: how many rows those batches have.

    What the thread raises is raised in the consumer, as soon as it asks. `close` ends the thread
    even while it decodes; leaving the `with` block calls it.
    """

    def __init__(
        self, loader: Loader, start: int, stop: int, put: Callable[[dict], Any], prefetch: int = 2
    ):
        self.wait, self.busy, self.made = 0.0, 0.0, 0
        self._loader, self._numbers, self._put = loader, range(start, stop), put
        self._ready: queue.Queue = queue.Queue(prefetch)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for _ in self._numbers:
            yield self._next()

    def close(self) -> None:
        """Ends the thread and drops what it has made; may be called twice."""
        self._stopped.set()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(0.01)
        self._drain()

    def _next(self) -> tuple[int, Any]:
        began = time.perf_counter()
        try:
            while True:
                if self._error is not None:
                    self.close()
                    raise self._error
                try:
                    return self._ready.get(timeout=0.1)
                except queue.Empty:
                    if self._stopped.is_set():
                        raise RuntimeError("this feed is closed") from None
        finally:
            self.wait += time.perf_counter() - began

    def _work(self) -> None:
        try:
            ahead = self._begun(self._numbers.start)
            for number in self._numbers:
                began = time.perf_counter()
                ahead, pending = self._begun(number + 1), ahead
                assert pending is not None  # `number` is one of the loop's.
                rows = pending.result()
                batch = (number, self._put(rows))
                self.made += len(rows["label"])
                self.busy += time.perf_counter() - began
                # Only `batch` may hold the host's memory from here on.
                del rows, pending
                if not self._offer(batch):
                    return
                del batch
        except Stopped:
            return
        # Whatever it is, the consumer must see it.
        except BaseException as error:
            self._error = error

    def _begun(self, number: int) -> PendingBatch | None:
        return self._loader.begin(number, self._stopped) if number in self._numbers else None

    def _offer(self, batch: tuple[int, Any]) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(batch, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def _drain(self) -> None:
        while True:
            try:
                self._ready.get_nowait()
            except queue.Empty:
                return
