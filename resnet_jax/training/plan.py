"""When things happen in a run, in steps."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class Plan:
    """When a run logs, evaluates, saves and ends.

    Attributes:
      batch_size: images a step.
      steps_per_epoch: whole batches in an epoch.
      total_steps: length of the run.
      eval_every_epochs, save_every_epochs: epochs between evaluations and between checkpoints.
      log_every_steps: steps between lines of the log; an epoch's end always gets one.
      stop_at_top1: an evaluation that reaches it ends the run; None: none does.
    """

    batch_size: int
    steps_per_epoch: int
    total_steps: int
    eval_every_epochs: float
    save_every_epochs: float
    log_every_steps: int
    stop_at_top1: float | None = None

    def evaluates_at(self, step: int) -> bool:
        # A run that goes on with fewer epochs may be past its end.
        return step >= self.total_steps or self._passes(step, self.eval_every_epochs)

    def saves_at(self, step: int) -> bool:
        return step >= self.total_steps or self._passes(step, self.save_every_epochs)

    def logs_at(self, step: int) -> bool:
        step_in_epoch = step % self.steps_per_epoch
        return step_in_epoch % self.log_every_steps == 0 or step == self.total_steps

    def is_reached(self, scores: Mapping[str, float]) -> bool:
        """Whether an evaluation, {} for none, is good enough to end the run."""
        return self.stop_at_top1 is not None and scores.get("top1", 0) >= self.stop_at_top1

    def is_over(self, step: int, scores: Mapping[str, float]) -> bool:
        """Whether a run that is at `step`, and was scored there, has nothing more to do."""
        return bool(scores) and (step >= self.total_steps or self.is_reached(scores))

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def pauses_at(self, step: int) -> bool:
        """Whether the host waits for this step, to log, evaluate or save."""
        return self.logs_at(step) or self.evaluates_at(step) or self.saves_at(step)

    def epoch(self, step: int) -> float:
        # So many digits that no two steps have the same number.
        return round(step / self.steps_per_epoch, max(4, len(str(self.steps_per_epoch))))

    def _passes(self, step: int, every_epochs: float) -> bool:
        """Whether a multiple of `every_epochs` lies in the epochs that this step adds."""
        every_steps = every_epochs * self.steps_per_epoch
        # A multiple that falls on a step must count for it, however the quotient is rounded.
        return int(step / every_steps + 1e-9) > int((step - 1) / every_steps + 1e-9)


class Phase(NamedTuple):
    """A stretch of a run whose steps are one compiled program.

    Attributes:
      end: the number of the first step after it.
      step: the jitted (state, batch) -> (state, `step.Metrics`).
      image_shape: [H, W, C] of its batches.
      is_frozen: whether the parameters that `optimizer.freeze` names stay as they are.
    """

    end: int
    step: Any
    image_shape: tuple[int, ...]
    is_frozen: bool
