"""The loop: steps, evaluations, checkpoints and the log, in an order that a resume can repeat."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from resnet_jax.distributed.requests import Answer, Requests
from resnet_jax.distributed.signals import Interrupted
from resnet_jax.errors import UserError
from resnet_jax.training import memory
from resnet_jax.training.checkpointing.checkpoints import Checkpoints
from resnet_jax.training.evaluation import Batches, evaluate
from resnet_jax.training.metrics import MetricSums
from resnet_jax.training.plan import Plan
from resnet_jax.training.progress import Progress
from resnet_jax.training.reporting.reporter import Reporter
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Metrics

SLOW_STEP_SECONDS = 1.0


class NotFinite(UserError):
    """The loss or a gradient is NaN or infinite; all processes raise it at the same step."""


@dataclasses.dataclass(frozen=True)
class TrainingSide:
    """What trains.

    Attributes:
      step_at: number of a step -> the compiled (state, batch) -> (state, `Metrics`) that takes it.
      open: (start, stop) -> the batches of these steps.
    """

    step_at: Callable[[int], Callable]
    open: Callable[[int, int], Batches]


@dataclasses.dataclass(frozen=True)
class EvaluatingSide:
    """What scores.

    Attributes:
      step: the compiled (variables, batch) -> `EvalMetrics`.
      open: () -> the batches of the split.
      split: its name in the log.
      out_of_memory: () -> the error of an evaluation that does not fit into a device's memory.
      scores_both: whether the trained variables are scored beside their average.
    """

    step: Callable
    open: Callable[[], Batches]
    split: str
    out_of_memory: Callable[[], UserError]
    scores_both: bool = False


@dataclasses.dataclass(frozen=True)
class Started:
    """A step that the devices have been given.

    Attributes:
      step: how many steps are taken with it.
      metrics: its own, perhaps still being computed.
      asked: what this process asked the others with it, see `Requests`.
    """

    step: int
    metrics: Metrics
    asked: Any


class Loop:
    """Trains from the state of a step to the end of the plan.

    Args:
      plan: when things happen.
      training, evaluating: the compiled steps and their data.
      checkpoints: where the state goes.
      reporter: what people see.
      requests: to stop or to save.
    """

    def __init__(
        self,
        plan: Plan,
        training: TrainingSide,
        evaluating: EvaluatingSide,
        checkpoints: Checkpoints,
        reporter: Reporter,
        requests: Requests,
    ):
        self._plan = plan
        self._training, self._evaluating = training, evaluating
        self._checkpoints, self._reporter, self._requests = checkpoints, reporter, requests
        # Whether this process's last step was slow, and whether all agreed to wait for slow steps.
        # Until one has been timed, steps count as slow.
        self._is_slow_here, self._waits = True, True

    def run(self, state: TrainState, progress: Progress) -> TrainState:
        """Trains to the end, evaluating and saving on the way.

        Args:
          state: where to start.
          progress: of that state; it is moved on.

        Returns:
          The state after the last step.

        Raises:
          Interrupted: a signal asked to stop; the state is saved.
          NotFinite: the loss or a gradient is not finite.
          UserError: the last checkpoint cannot be written.
        """
        if progress.step and not progress.scores and self._plan.evaluates_at(progress.step):
            self._visit(state, progress, Answer())  # stopped between this step and its evaluation
        if progress.step < self._plan.total_steps and not self._is_over(progress):
            with (
                self._training.open(progress.step, self._plan.total_steps) as batches,
                self._reporter.training(batches, progress.step),
            ):
                state = self._steps(state, progress, batches)
        # Saves run behind the training: the run is not over before the last one is on disk.
        if not self._reporter.saving(self._checkpoints.wait):
            raise UserError(
                f"the last checkpoint could not be written to {self._checkpoints.directory}: "
                "see above"
            )
        return state

    def _steps(self, state: TrainState, progress: Progress, batches: Batches) -> TrainState:
        """Takes all steps; what is due after one happens when its metrics have been read."""
        before: Started | None = None
        for number, batch in batches:
            self._reporter.before_step(number)
            state, metrics = self._training.step_at(number)(state, batch)
            started = Started(number + 1, metrics, self._requests.ask(self._is_slow_here))
            # From here on a signal saves; before the first step it simply ends the process.
            self._requests.signals.nothing_to_lose = False
            # The metrics of a step are read when the next one has been started, so that the devices
            # never wait for the host; what is asked with them is therefore done a step later.
            answer = self._settle(before, progress)
            before = started
            # Where steps are slow the host does wait: a signal then stops the run at the end of the
            # step that it came in, and not a whole step later.
            if answer.stop or answer.save or self._waits or self._pauses_after(started.step):
                answer |= self._settle(before, progress)
                before = None
                self._visit(state, progress, answer)
                if self._is_over(progress):
                    break
            self._checkpoints.poll()
        return state

    def _is_over(self, progress: Progress) -> bool:
        return self._plan.is_over(progress.step, progress.scores)

    def _pauses_after(self, step: int) -> bool:
        return self._plan.pauses_at(step) or self._reporter.ends_trace_after(step)

    def _settle(self, started: Started | None, progress: Progress) -> Answer:
        """Reads the metrics of a started step into `progress`; returns what was agreed with it."""
        if started is None:
            return self._requests.answer(None)

        def read() -> tuple[Metrics, Answer]:
            return jax.device_get(started.metrics), self._requests.answer(started.asked)

        metrics, answer = self._requests.signals.patiently(read) if self._waits else read()
        # Every process has the same metrics, so all of them stop here.
        if not metrics.is_finite:
            self._stop_at_not_finite(started.step)
        # Not at the end of the epoch itself: what is due there still reads its sums.
        if self._plan.ends_epoch(started.step - 1):
            progress.epoch = MetricSums()
        progress.step, progress.scores = started.step, {}
        progress.epoch.add(metrics.sums)
        progress.window.add(metrics.sums)
        progress.rate = float(metrics.rate)
        self._is_slow_here = self._reporter.step(progress) > SLOW_STEP_SECONDS
        self._waits = answer.step_is_slow
        return answer

    def _visit(self, state: TrainState, progress: Progress, answer: Answer) -> None:
        """Does what is due after a step: log, evaluate, save, stop."""
        step, stop, is_best = progress.step, answer.stop, False
        # The order matters: the line on training, then the evaluation, then a checkpoint that holds
        # both scores and sums, so that a resumed log goes on as if nothing had happened.
        # Where a run goes on between a step and its evaluation, no step has been timed yet.
        if self._plan.logs_at(step) and progress.window.examples and self._reporter.has_timed:
            self._reporter.log(progress)
            progress.window = MetricSums()
        if self._plan.evaluates_at(step) and not stop:
            stop, is_best = self._evaluate(state, progress)
        is_reached = self._plan.is_reached(progress.scores)
        is_due = self._plan.saves_at(step) or is_best or is_reached
        saves = bool(answer.save or stop or is_due)
        if saves:
            self._reporter.saving(
                lambda: self._checkpoints.save(state.saved(), progress.to_notes())
            )
            self._requests.saved()
        self._reporter.after_visit(step, paused=saves or self._plan.pauses_at(step))
        if is_reached:
            self._reporter.say(
                f"top1 {progress.scores['top1']:.4f} reaches stop_at_top1 ="
                f" {self._plan.stop_at_top1:g}: the run ends at step {step}"
            )
        # Last, when all that an undisturbed run would have done here is done or noted as not done.
        if stop:
            if not self._reporter.saving(self._checkpoints.wait):
                raise UserError(
                    f"stopped, and the checkpoint of step {step} could not be written to"
                    f" {self._checkpoints.directory}: see above"
                )
            self._reporter.say(f"saved step {step}; the same command resumes")
            raise Interrupted(stop)

    def _evaluate(self, state: TrainState, progress: Progress) -> tuple[int, bool]:
        """Scores the evaluation split into `progress`.

        Returns:
          The exit status to stop with where a signal came instead, else 0; whether it is the best.
        """
        scores_both = state.ema is not None and self._evaluating.scores_both
        with self._reporter.evaluating(progress, self._evaluating.split) as report:
            scored, stop = self._score(state.eval_variables)
            beside = scored
            if scores_both and not stop:
                beside, stop = self._score(state.trained_variables)
            if scored is None or beside is None:
                return stop, False
            progress.scores = scored.means()
            if scores_both:
                means = beside.means()
                progress.scores |= {f"trained_{name}": mean for name, mean in means.items()}
            report(scored)
        is_best = self._checkpoints.is_better(progress.scores, progress.best)
        if is_best:
            progress.best = {"step": progress.step, **progress.scores}
        return 0, is_best

    def _score(self, variables: dict[str, Any]) -> tuple[MetricSums | None, int]:
        side = self._evaluating
        with memory.explaining(side.out_of_memory):
            return evaluate(side.step, variables, side.open(), self._requests)

    def _stop_at_not_finite(self, step: int) -> None:
        # The message names a checkpoint, which may be on its way to disk.
        self._checkpoints.wait()
        kept = self._checkpoints.steps()
        where = f"go on from checkpoint {kept[-1]}" if kept else "begin again"
        accept = " --accept_recipe_change=schedule.base_lr" if kept else ""
        raise NotFinite(
            f"loss or gradients are not finite at step {step} (epoch {self._plan.epoch(step):g}): "
            f"{where} with a lower rate, by the same command with "
            f"--config.schedule.base_lr=LOWER{accept}"
        )
