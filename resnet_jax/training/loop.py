"""The training loop: steps, evaluations, checkpoints and the log, in an order that a resume can
repeat.
"""

import dataclasses
import time
from collections.abc import Callable

import jax

from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.signals import Interrupted, Signals
from resnet_jax.errors import UserError
from resnet_jax.training.checkpointing.checkpoints import Checkpoints, Notes
from resnet_jax.training.evaluation import Feed, evaluate
from resnet_jax.training.metrics import MetricSums
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.reporting.goodput import STEPS, Goodput
from resnet_jax.training.reporting.logbook import Logbook
from resnet_jax.training.reporting.step_timer import StepTimer
from resnet_jax.training.reporting.trace import Trace
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Metrics


@dataclasses.dataclass(frozen=True)
class Plan:
    """When things happen, in steps.

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
        return int(step / every_steps + 1e-9) > int((step - 1) / every_steps + 1e-9)


class Loop:
    """Trains from the state of a step to the end of the plan.

    Args:
      plan: when things happen.
      train_step, eval_step: the compiled programs.
      open_feed: (first step, last step) -> the training batches between them.
      open_eval_feed: () -> the evaluation split.
      eval_split: the split's name in the log.
      diagnose: (feed, images=, seconds=) -> a line when the steps wait too long for data, or None;
        said once.
      checkpoints, logbook, display: where things go.
      interrupts, requests: requests to stop or to save.
      goodput: adds up where the time goes.
      trace: records some of the steps.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        train_step: Callable,
        eval_step: Callable,
        open_feed: Callable[[int, int], Feed],
        open_eval_feed: Callable[[], Feed],
        eval_split: str,
        diagnose: Callable[..., str | None],
        checkpoints: Checkpoints,
        logbook: Logbook,
        display: Display,
        interrupts: Signals,
        requests: Requests,
        goodput: Goodput,
        trace: Trace,
    ):
        self._plan = plan
        self._train_step, self._eval_step = train_step, eval_step
        self._open_feed, self._open_eval_feed = open_feed, open_eval_feed
        self._eval_split = eval_split
        self._diagnose, self._is_diagnosed = diagnose, False
        self._checkpoints, self._logbook, self._display = checkpoints, logbook, display
        self._interrupts, self._wishes = interrupts, requests
        self._goodput, self._trace = goodput, trace
        self._epoch, self._window = MetricSums(), MetricSums()
        self._scores: dict[str, float] = {}
        self._best: dict[str, float] | None = None
        self._is_best = False
        self._speed = 0.0

    def run(self, state: TrainState, notes: Notes | None = None) -> TrainState:
        """Trains to the end, evaluating and saving on the way.

        Args:
          state: where to start.
          notes: what was saved beside it; None at the beginning.

        Returns:
          The state after the last step.

        Raises:
          Interrupted: a signal asked to stop; the state is saved.
          UserError: the loss or a gradient is no longer finite, or the last checkpoint cannot be
            written.
        """
        step = 0
        if notes is not None:
            step, self._scores = notes.step, dict(notes.scores)
            self._epoch, self._window = (
                MetricSums(**notes.meters["epoch"]),
                MetricSums(**notes.meters["window"]),
            )
            self._best = notes.meters["best"]
            if self._plan.evaluates_at(step) and not self._scores:
                self._visit(step, state)
        if step < self._plan.total_steps:
            with self._open_feed(step, self._plan.total_steps) as feed:
                pace = StepTimer(feed)
                try:
                    with self._goodput.spent(STEPS):
                        state = self._steps(step, state, feed, pace)
                finally:
                    self._trace.stop()
                    self._goodput.waited(feed.wait)
                    if line := pace.line():
                        self._display.say(line)
        with self._goodput.spent("saving"):
            arrived = self._checkpoints.wait()
        if not arrived:
            raise UserError(
                f"the last checkpoint could not be written to {self._checkpoints.directory}: see"
                " above"
            )
        return state

    def _steps(self, step: int, state: TrainState, feed: Feed, pace: StepTimer) -> TrainState:
        self._display.start("training", self._plan.total_steps, step)
        before: Metrics | None = None
        for _, batch in feed:
            self._trace.before(step)
            state, metrics = self._train_step(state, batch, self._wishes.array())
            step += 1
            self._interrupts.nothing_to_lose = False
            answers = self._settle(step - 1, before, pace)
            before = metrics
            stop, save = self._wishes.agreed(answers)
            if stop or save or self._plan.pauses_at(step) or self._trace.is_over(step - 1):
                answers = self._settle(step, before, pace)
                before = None
                stop, save = (
                    max(old, new)
                    for old, new in zip((stop, save), self._wishes.agreed(answers), strict=True)
                )
                if self._trace.is_over(step - 1):
                    self._trace.stop()
                if self._plan.logs_at(step):
                    self._log(step, pace)
                self._visit(step, state, save=save, stop=stop)
                pace.restart()
            self._checkpoints.poll()
        self._display.stop()
        return state

    def _settle(self, step: int, metrics: Metrics | None, pace: StepTimer):
        """Reads the metrics of a step that was started earlier; returns its requests."""
        if metrics is None:
            return None
        metrics = jax.device_get(metrics)
        if not metrics.sound:
            self._checkpoints.wait()
            raise UserError(
                f"loss or gradients are not finite at step {step} (epoch"
                f" {self._plan.epoch(step):g}): lower config.schedule.base_lr or lengthen"
                " config.schedule.warmup_epochs; the last good checkpoint is"
                f" {max(self._checkpoints.steps(), default='none')}"
            )
        if self._plan.ends_epoch(step - 1):
            self._epoch = MetricSums()
        self._scores = {}
        self._epoch.add(metrics.sums)
        self._window.add(metrics.sums)
        self._rate = float(metrics.rate)
        pace.settled(self._plan.batch_size)
        means = self._window.means()
        self._display.tick(
            numbers={
                "loss": f"{means['loss']:.4f}",
                "top1": f"{means['top1']:.3f}",
                "lr": f"{self._rate:.3g}",
                "images/s": f"{pace.images_per_sec():.0f}",
                "data wait": f"{pace.data_wait():.0%}",
            }
        )
        return metrics.requests

    def _log(self, step: int, pace: StepTimer) -> None:
        """Writes the line of the steps since the last one."""
        self._logbook.write(
            {
                "step": step,
                "epoch": self._plan.epoch(step),
                "split": "train",
                **self._window.means(),
                "examples": self._window.examples,
                "lr": self._rate,
                **pace.record(),
            }
        )
        self._window = MetricSums()
        self._speed = pace.images_per_sec()
        if not self._is_diagnosed:
            line = self._diagnose(
                pace.feed, images=pace.all_examples // jax.process_count(), seconds=pace.all_seconds
            )
            if line:
                self._display.say(line)
                self._is_diagnosed = True

    def _visit(self, step: int, state: TrainState, *, save: bool = False, stop: int = 0) -> None:
        """Does what is due after a step: evaluate, save, stop."""
        if self._plan.evaluates_at(step) and not stop:
            stop = self._evaluate(step, state)
        if save or stop or self._plan.saves_at(step) or self._is_best:
            meters = {
                "epoch": self._epoch.as_dict(),
                "window": self._window.as_dict(),
                "best": self._best,
            }
            with self._goodput.spent("saving"):
                self._checkpoints.save(state, Notes(step, self._scores, meters))
            self._wishes.saved()
            self._is_best = False
        if stop:
            self._display.stop()
            with self._goodput.spent("saving"):
                arrived = self._checkpoints.wait()
            if not arrived:
                raise UserError(
                    f"stopped, and the checkpoint of step {step} could not be written: see above"
                )
            self._display.say(f"saved step {step}; the same command resumes")
            raise Interrupted(stop)

    def _evaluate(self, step: int, state: TrainState) -> int:
        """Scores the evaluation split and writes it down; returns the exit status if a signal came
        instead.
        """
        began = time.monotonic()
        with self._goodput.spent("evaluating"):
            means, stop = evaluate(
                self._eval_step, state.variables, self._open_eval_feed(), self._wishes
            )
        if means is None:
            return stop
        record = {
            "step": step,
            "epoch": self._plan.epoch(step),
            "split": self._eval_split,
            **means.means(),
        }
        record |= {"examples": means.examples}
        self._scores = means.means()
        speed = means.examples / (time.monotonic() - began)
        self._logbook.write(record | {"images_per_sec": round(speed, 1)})
        self._is_best = self._checkpoints.is_better(self._scores, self._best)
        if self._is_best:
            self._best = {"step": step, **self._scores}
        train_loss = self._epoch.means()["loss"]
        self._display.say(
            f"[epoch {self._plan.epoch(step):g}/{self._plan.epoch(self._plan.total_steps):g}] train"
            f" loss {train_loss:.3f} · {self._eval_split} loss {self._scores['loss']:.3f} top1"
            f" {self._scores['top1']:.4f} ({means.top1}/{means.examples}) top5"
            f" {self._scores['top5']:.4f} · {self._speed:.0f} images/s"
        )
        return 0
