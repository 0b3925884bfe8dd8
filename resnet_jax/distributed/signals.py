"""Signals that ask a run to save and stop, seen at any moment."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
EXIT_STATUS: dict[int, int] = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143}


class Interrupted(Exception):
    """The run was asked to stop and has saved; `status` is the exit status for the scheduler."""

    def __init__(self, status: int):
        super().__init__(f"stopped by a signal (exit status {status})")
        self.status = status


class Signals:
    """Listens for SIGTERM, SIGINT and Slurm's USR1 while it is entered.

    The first signal sets `stop`, which the loop reads between steps. While `nothing_to_lose`
    holds, before the first step, a signal ends the process at once, as a second SIGINT does at
    any time. Enter it after `jax.distributed.initialize`, which installs handlers of its own, and
    in the main thread.

    Args:
      silent: say nothing; for all processes but one.

    Attributes:
      stop: the exit status asked for, or 0.
      nothing_to_lose: whether stopping now would lose no step.
      before_exit: what is called before a signal ends the process at once.
    """

    def __init__(self, silent: bool = False):
        self.stop = 0
        self.nothing_to_lose = True
        self.before_exit: list[Callable[[], None]] = []
        self._silent = silent
        self._before: dict[int, Any] = {}
        self._waiting = ThreadPoolExecutor(1, thread_name_prefix="waiting")

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in EXIT_STATUS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._waiting.shutdown()

    def _handle(self, number: int, _) -> None:
        name = signal.Signals(number).name
        if self.nothing_to_lose or (self.stop and number == signal.SIGINT):
            self._say(f"{name}: stopping now")
            for call in self.before_exit:
                call()
            os._exit(EXIT_STATUS[number])
        if not self.stop:
            self.stop = EXIT_STATUS[number]
            self._say(
                f"{name}: saving, then stopping; the same command resumes"
                + "; again to stop now" * (number == signal.SIGINT)
            )

    def _say(self, line: str) -> None:
        # The signal may have come in the middle of a print, which Python does not let us enter
        # again.
        if not self._silent:
            os.write(1, f"{line}\n".encode())

    def patiently(self, work: Callable[[], Result]) -> Result:
        """Runs long work, such as a compilation, while signals are still handled.

        Python runs a handler in the main thread, between two of its own instructions. A call into
        JAX is one instruction, so it goes to a thread, and the main thread waits in Python.
        """
        return self._waiting.submit(work).result()
