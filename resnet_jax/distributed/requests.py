"""What people and the clock ask of a run, at the same step in every process: to stop, to save."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from resnet_jax.distributed.mesh import is_lead, replicated, shard_batch, split_by_batch
from resnet_jax.distributed.signals import Signals


@dataclasses.dataclass(frozen=True)
class Answer:
    """What all processes do after a step.

    Attributes:
      stop: the exit status to stop with; 0: go on.
      save: whether to save a checkpoint.
      step_is_slow: whether steps take so long that the loop should not run ahead of them.
    """

    stop: int = 0
    save: bool = False
    step_is_slow: bool = False

    def __or__(self, other: "Answer") -> "Answer":
        return Answer(
            max(self.stop, other.stop),
            self.save or other.save,
            self.step_is_slow or other.step_is_slow,
        )


class Requests:
    """Requests of this process, and the answers that all processes agree on.

    A process that acted on its own signal would leave the others waiting for it in the next
    step. So with several processes each `ask` starts a small program beside the step, the
    maximum over all devices of what their processes want, and `answer` reads its result: the
    same, for the same step, everywhere. A process alone starts nothing.

    Args:
      signals: of this process.
      mesh: the devices.
      every_minutes: how often process 0 asks for a checkpoint; None for never.
    """

    def __init__(
        self, signals: Signals, mesh: jax.sharding.Mesh, every_minutes: float | None = None
    ):
        self.signals = signals
        self._mesh = mesh
        self._interval = None if every_minutes is None else every_minutes * 60
        self._maximum = None
        self.saved()
        if jax.process_count() > 1:
            # Compiled here, before the first step, since a compilation beside one would delay it.
            program = jax.jit(
                lambda rows: rows.max(axis=0),
                in_shardings=split_by_batch(mesh),
                out_shardings=replicated(mesh),
            )
            self._maximum = program.lower(self._on_devices(Answer())).compile()

    def saved(self) -> None:
        """Starts the clock towards the next checkpoint again."""
        self._last_save = time.monotonic()

    def ask(self, step_is_slow: bool = False) -> Any:
        """Tells the other processes what this one wants; returns what `answer` takes."""
        mine = self._wanted(step_is_slow)
        return mine if self._maximum is None else self._maximum(self._on_devices(mine))

    def answer(self, asked: Any) -> Answer:
        """Returns what all processes do; waits for those that have not asked yet.

        Args:
          asked: from `ask`; None where nothing is open. What a process alone wants by now counts
            in any case, since nobody else has to agree.
        """
        if self._maximum is None:
            return self._wanted() | (asked or Answer())
        if asked is None:
            return Answer()
        stop, save, step_is_slow = np.asarray(asked).tolist()
        return Answer(stop, bool(save), bool(step_is_slow))

    def _wanted(self, step_is_slow: bool = False) -> Answer:
        return Answer(self.signals.stop, is_lead() and self._is_due(), step_is_slow)

    def _on_devices(self, mine: Answer) -> jax.Array:
        row = np.array(dataclasses.astuple(mine), np.int32)
        rows = np.tile(row, (len(self._mesh.local_devices), 1))
        return shard_batch(self._mesh, {"rows": rows})["rows"]

    def _is_due(self) -> bool:
        return self._interval is not None and time.monotonic() - self._last_save > self._interval
