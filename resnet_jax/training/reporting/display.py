"""What a person sees while a run goes on."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from tqdm import tqdm

PLAIN_LINE_SECONDS = 30
_CLOCK_SECONDS = 0.5


class Display:
    """Lines on standard output and, on a terminal, a progress bar on standard error.

    Args:
      silent: show nothing; for all processes but one.
    """

    def __init__(self, silent: bool = False):
        self._silent = silent
        self._live = sys.stderr.isatty() and not silent
        self._bar: tqdm | None = None

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if not self._silent:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def warn(self, line: str) -> None:
        """Says what only this process has found; a silent one says it on standard error, with its
        number.
        """
        if self._silent:
            print(f"process {jax.process_index()}: {line}", file=sys.stderr, flush=True)
        else:
            self.say(line)

    def row(self, name: str, value: str, width: int = 8) -> None:
        """Prints a name and a value in two columns, of which the first is `width` wide."""
        self.say(f"{name:<{width}}  {value}")

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says what is being waited for inside; on a terminal with the seconds, counting."""
        if not self._live:
            self.say(f"{what} ...")
            yield
            return
        ended = threading.Event()
        with tqdm(desc=what, bar_format="{desc} ... {elapsed}", leave=False) as clock:

            def count() -> None:
                while not ended.wait(_CLOCK_SECONDS):
                    clock.refresh()

            counting = threading.Thread(target=count, name="clock", daemon=True)
            counting.start()
            try:
                yield
            finally:
                ended.set()
                counting.join()

    def start(self, what: str, total: int, done: int = 0, unit: str = "step") -> None:
        """Begins a stretch of work of `total` units."""
        self._what, self._total, self._done, self._first = what, total, done, done
        self._began = self._last_line = time.monotonic()
        if self._live:
            self._bar = tqdm(
                desc=what, total=total, initial=done, unit=unit, dynamic_ncols=True, leave=False
            )

    def tick(self, count: int = 1, numbers: Mapping[str, Any] | None = None) -> None:
        """Advances the work under way and shows the newest numbers beside it."""
        self._done += count
        if self._bar is not None:
            if numbers:
                self._bar.set_postfix_str(
                    " ".join(f"{name} {value}" for name, value in numbers.items()), refresh=False
                )
            self._bar.update(count)
        elif (
            not self._silent and numbers and time.monotonic() - self._last_line > PLAIN_LINE_SECONDS
        ):
            self._last_line = time.monotonic()
            left = (
                (self._last_line - self._began)
                / (self._done - self._first)
                * (self._total - self._done)
            )
            shown = " ".join(f"{name} {value}" for name, value in numbers.items())
            self.say(f"{self._what} {self._done}/{self._total} · {shown} · {_duration(left)} left")

    def stop(self) -> None:
        """Ends the stretch of work and removes its bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
