"""What the processes ask of the next steps: to stop, or to save."""

import time

import jax
import numpy as np

from resnet_jax.distributed.mesh import is_lead, shard_batch
from resnet_jax.distributed.signals import Signals


class Requests:
    """What the processes want from the next steps, agreed on through the step itself.

    Each process feeds its requests into the step, which takes the largest of each over all devices;
    they come back with the metrics, so all processes read the same answer for the same step.

    Args:
      interrupts: this process's signals.
      mesh: the devices.
      every_minutes: how often process 0 requests for a checkpoint; None for never.
    """

    def __init__(self, interrupts: Signals, mesh, every_minutes: float | None = None):
        self._interrupts = interrupts
        self._mesh = mesh
        self._interval = None if every_minutes is None else every_minutes * 60
        self.saved()
        self._local_devices = len(mesh.local_devices)
        self._none = self._array(0, 0)

    def _array(self, stop: int, save: int):
        rows = np.zeros((self._local_devices, 2), np.int32)
        rows[0] = stop, save
        return shard_batch(self._mesh, {"requests": rows})["requests"]

    def saved(self) -> None:
        """Starts the clock towards the next wish for a checkpoint anew."""
        self._last_save = time.monotonic()

    def array(self):
        """Returns int32 [devices, 2]: exit status to stop with (0: none), whether to save."""
        save = is_lead() and self._is_due()
        if not self._interrupts.stop and not save:
            return self._none
        return self._array(self._interrupts.stop, int(save))

    def agreed(self, answers: np.ndarray | None) -> tuple[int, bool]:
        """Returns what all processes agree to do: exit status to stop with (0: go on), whether
        to save.

        Args:
          answers: the requests that came back with the newest metrics; one process need not wait
            for them.
        """
        if jax.process_count() == 1:
            return self._interrupts.stop, self._is_due()
        return (0, False) if answers is None else (int(answers[0]), bool(answers[1]))

    def _is_due(self) -> bool:
        return self._interval is not None and time.monotonic() - self._last_save > self._interval
