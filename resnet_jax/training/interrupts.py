"""Signals that ask a run to save and stop, seen at any moment."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import numpy as np

from resnet_jax import parallel

Result = TypeVar("Result")
EXIT_STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143}


class Interrupted(Exception):
    """The run was asked to stop and has saved; `status` is the exit status for the scheduler."""

    def __init__(self, status: int):
        super().__init__(f"stopped by a signal (exit status {status})")
        self.status = status


class Interrupts:
    """Listens for SIGTERM, SIGINT and Slurm's USR1 while it is entered.

    The first signal sets `stop`, which the loop reads between steps. While `nothing_to_lose` holds, before the
    first step, a signal ends the process at once, as a second SIGINT does at any time. Enter it after
    `jax.distributed.initialize`, which installs handlers of its own, and in the main thread.

    Args:
      silent: say nothing; for all processes but one.

    Attributes:
      stop: the exit status asked for, or 0.
      nothing_to_lose: whether stopping now would lose no step.
    """

    def __init__(self, silent: bool = False):
        self.stop = 0
        self.nothing_to_lose = True
        self._silent = silent
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in EXIT_STATUS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        name = signal.Signals(number).name
        if self.nothing_to_lose or (self.stop and number == signal.SIGINT):
            self._say(f"{name}: stopping now")
            os._exit(EXIT_STATUS[number])
        if not self.stop:
            self.stop = EXIT_STATUS[number]
            self._say(
                f"{name}: saving, then stopping; the same command resumes"
                + "; again to stop now" * (number == signal.SIGINT)
            )

    def _say(self, line: str) -> None:
        # The signal may have come in the middle of a print, which Python does not let us enter again.
        if not self._silent:
            os.write(1, f"{line}\n".encode())

    def patiently(self, work: Callable[[], Result]) -> Result:
        """Runs long work that holds the main thread, such as a compilation, so that signals are still handled."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(work).result()


class Wishes:
    """What the processes want from the next steps, agreed on through the step itself.

    Each process feeds its wishes into the step, which takes the largest of each over all devices; they come back
    with the metrics, so all processes read the same answer for the same step.

    Args:
      interrupts: this process's signals.
      mesh: the devices.
      every_minutes: how often process 0 wishes for a checkpoint; None for never.
    """

    def __init__(self, interrupts: Interrupts, mesh, every_minutes: float | None = None):
        self._interrupts = interrupts
        self._mesh = mesh
        self._interval = None if every_minutes is None else every_minutes * 60
        self.saved()
        self._local_devices = len(mesh.local_devices)
        self._none = self._array(0, 0)

    def _array(self, stop: int, save: int):
        rows = np.zeros((self._local_devices, 2), np.int32)
        rows[0] = stop, save
        return parallel.shard_batch(self._mesh, {"wishes": rows})["wishes"]

    def saved(self) -> None:
        """Starts the clock towards the next wish for a checkpoint anew."""
        self._last_save = time.monotonic()

    def array(self):
        """Returns int32 [devices, 2]: exit status to stop with (0: none), whether to save."""
        save = parallel.is_lead() and self._is_due()
        if not self._interrupts.stop and not save:
            return self._none
        return self._array(self._interrupts.stop, int(save))

    def agreed(self, told: np.ndarray | None) -> tuple[int, bool]:
        """Returns what all processes agree to do: exit status to stop with (0: go on), whether to save.

        Args:
          told: the wishes that came back with the newest metrics; one process need not wait for them.
        """
        if jax.process_count() == 1:
            return self._interrupts.stop, self._is_due()
        return (0, False) if told is None else (int(told[0]), bool(told[1]))

    def _is_due(self) -> bool:
        return self._interval is not None and time.monotonic() - self._last_save > self._interval
