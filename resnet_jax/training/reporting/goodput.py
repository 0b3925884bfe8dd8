"""Where the wall time of a run went."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

STEPS, WAITING = "steps", "waiting for data"


class Goodput:
    """Adds up the seconds spent in each kind of work; what is named nowhere is "other"."""

    def __init__(self):
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = self._began

    @contextlib.contextmanager
    def spent(self, work: str) -> Iterator[None]:
        """Counts the time inside as `work`; what is opened inside counts for itself alone."""
        self._turn()
        self._open.append(work)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def waited(self, seconds: float) -> None:
        """Moves time that was counted as steps to waiting for data."""
        self._seconds[STEPS] = self._seconds.get(STEPS, 0.0) - seconds
        self._seconds[WAITING] = self._seconds.get(WAITING, 0.0) + seconds

    def shares(self) -> dict[str, float]:
        """Returns work -> share of the wall time since the beginning; the shares add up to one."""
        self._turn()
        wall = max(self._since - self._began, 1e-9)
        shares = {work: seconds / wall for work, seconds in self._seconds.items()}
        return shares | {"other": max(0.0, 1 - sum(shares.values()))}

    def record(self) -> dict[str, Any]:
        """Returns the wall time in seconds and the `shares`, for JSON."""
        shares = {work: round(share, 4) for work, share in self.shares().items()}
        return {"seconds": round(self._since - self._began, 1), "shares": shares}

    def line(self) -> str:
        """Returns one line for a reader, for example "goodput: 93% of 61 s in steps; compiling 4%,
        ...".
        """
        shares = self.shares()
        steps = shares.pop(STEPS, 0.0)
        rest = ", ".join(
            f"{work} {share:.0%}"
            for work, share in sorted(shares.items(), key=lambda item: -item[1])
        )
        return f"goodput: {steps:.0%} of {self._since - self._began:.0f} s in steps; {rest}"

    def _turn(self) -> None:
        now = time.monotonic()
        if self._open:
            work = self._open[-1]
            self._seconds[work] = self._seconds.get(work, 0.0) + now - self._since
        self._since = now
