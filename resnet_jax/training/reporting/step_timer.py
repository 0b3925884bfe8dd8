"""How fast the steps go: images a second, waiting for data, step times, device memory."""

import time

import jax
import numpy as np

from resnet_jax.training.evaluation import Batches


class StepTimer:
    """Speed and waiting since the last line of the log, and since the start.

    Attributes:
      batches: where the images come from.
      all_examples, all_seconds: images and time of all steps since the start.
    """

    def __init__(self):
        self.batches: Batches | None = None
        self.all_examples, self.all_seconds = 0, 0.0
        self._all: list[float] = []
        self._times: list[float] = []
        self._examples = 0
        self._began = self._last = time.monotonic()
        self._waited = 0.0

    def start(self, batches: Batches) -> None:
        """Begins to time the steps that take these batches."""
        self.batches = batches
        self.restart()

    def restart(self) -> None:
        """Begins a new stretch, as after an evaluation, whose time is no step's."""
        self._examples = 0
        self._times = []
        self._began = self._last = time.monotonic()
        self._waited = self._wait()

    def step(self, examples: int) -> float:
        """Takes note that a step of `examples` images is done; returns its seconds."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        self._examples += examples
        self._times.append(seconds)
        self._all.append(seconds)
        self.all_examples += examples
        self.all_seconds += seconds
        return seconds

    @property
    def has_timed(self) -> bool:
        """Whether a step has ended since the last reset."""
        return bool(self._times)

    def images_per_sec(self) -> float:
        return self._examples / max(time.monotonic() - self._began, 1e-9)

    def data_wait(self) -> float:
        """Returns the share of the time that was spent waiting for data."""
        waited = self._wait() - self._waited
        return waited / max(time.monotonic() - self._began, 1e-9)

    def _wait(self) -> float:
        return self.batches.wait if self.batches else 0.0

    def record(self) -> dict[str, float]:
        """Returns the entries of the log on speed and memory, the `logbook.TIMES`."""
        half, most = np.percentile(self._times, (50, 95)) * 1000
        entries = {
            "images_per_sec": float(f"{self.images_per_sec():.5g}"),
            "data_wait": round(self.data_wait(), 4),
            "step_ms_p50": round(float(half), 3),
            "step_ms_p95": round(float(most), 3),
        }
        memory = peak_memory()
        return entries if memory is None else entries | {"device_gib": round(memory, 3)}

    def line(self) -> str | None:
        """Returns a line on all steps so far, None before the first."""
        if not self._all:
            return None
        half, most, longest = np.percentile(self._all, (50, 95, 99)) * 1000
        memory = peak_memory()
        held = "" if memory is None else f"; at most {memory:.2f} GiB of device memory"
        return (
            f"step time: median {half:.1f} ms, 95th percentile {most:.1f} ms, "
            f"99th {longest:.1f} ms{held}"
        )


def peak_memory() -> float | None:
    """Returns the most GiB that a device of this process has held, None where unknown (CPUs)."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [
        found["peak_bytes_in_use"] for found in stats if found and "peak_bytes_in_use" in found
    ]
    return max(peaks) / 2**30 if peaks else None
