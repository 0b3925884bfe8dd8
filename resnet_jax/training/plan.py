"""When things happen in a run, in steps."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Plan:
    """When a run logs, evaluates, saves and ends.

    Attributes:
      batch_size: images a step.
      steps_per_epoch: whole batches in an epoch.
      total_steps: length of the run.
      eval_every_epochs, save_every_epochs: epochs between evaluations and between checkpoints.
      log_every_steps: steps between lines of the log; an epoch's end always gets one.
    """

    batch_size: int
    steps_per_epoch: int
    total_steps: int
    eval_every_epochs: float
    save_every_epochs: float
    log_every_steps: int

    def evaluates_at(self, step: int) -> bool:
        return step == self.total_steps or self._passes(step, self.eval_every_epochs)

    def saves_at(self, step: int) -> bool:
        return step == self.total_steps or self._passes(step, self.save_every_epochs)

    def logs_at(self, step: int) -> bool:
        step_in_epoch = step % self.steps_per_epoch
        return step_in_epoch % self.log_every_steps == 0 or step == self.total_steps

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def pauses_at(self, step: int) -> bool:
        """Whether the host waits for this step, to log, evaluate or save."""
        return self.logs_at(step) or self.evaluates_at(step) or self.saves_at(step)

    def epoch(self, step: int) -> float:
        return round(step / self.steps_per_epoch, 4)

    def _passes(self, step: int, every_epochs: float) -> bool:
        """Whether a multiple of `every_epochs` lies in the epochs that this step adds."""
        every_steps = every_epochs * self.steps_per_epoch
        # A multiple that falls on a step must count for it, however the quotient is rounded.
        return int(step / every_steps + 1e-9) > int((step - 1) / every_steps + 1e-9)
