"""What the first steps say of the whole run: a warning where it is too large for the machine."""

import statistics
from pathlib import Path

_TIMED_STEPS = 3
_LONG_EPOCH_SECONDS = 3600
_LARGE_SHARE = 0.5


class Outlook:
    """Looks at the first steps, and says once what they mean.

    Args:
      steps_per_epoch: of the run.
      advice: what would make a step cheaper.
    """

    def __init__(self, steps_per_epoch: int, advice: str):
        self._steps_per_epoch, self._advice = steps_per_epoch, advice
        self._seconds: list[float] = []

    def step(self, seconds: float) -> list[str]:
        """Takes note of a step; returns a line for each warning when the last that counts is in."""
        if len(self._seconds) == _TIMED_STEPS:
            return []
        self._seconds.append(seconds)
        if len(self._seconds) < _TIMED_STEPS:
            return []
        lines = []
        step = statistics.median(self._seconds)
        epoch = step * self._steps_per_epoch
        if epoch > _LONG_EPOCH_SECONDS:
            lines.append(
                f"an epoch of {self._steps_per_epoch:,} steps will take about {epoch / 3600:.1f} "
                f"hours, {step:.1f} s a step: faster is {self._advice}"
            )
        used, total = used_memory(), total_memory()
        if used and total and used > _LARGE_SHARE * total:
            lines.append(
                f"the run uses {used / 2**30:.1f} of the machine's {total / 2**30:.1f} GiB of "
                f"memory: less needs {self._advice}, or a smaller config.batch_size"
            )
        return lines


def used_memory() -> int | None:
    """Returns the bytes of memory that this process holds, None where the system does not tell."""
    return _entry("/proc/self/status", "VmRSS:")


def total_memory() -> int | None:
    """Returns the bytes that this process may hold: the machine's, or its container's."""
    total = _entry("/proc/meminfo", "MemTotal:")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # There is none, or it is the word "max".
        return total
    return min(limit, total or limit)


def _entry(path: str, name: str) -> int | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
