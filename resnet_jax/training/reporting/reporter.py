"""What people see of a run: the screen, the log, the trace, and where the time went."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from resnet_jax.training.evaluation import Batches
from resnet_jax.training.metrics import MetricSums
from resnet_jax.training.plan import Plan
from resnet_jax.training.progress import Progress
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.reporting.goodput import STEPS, Goodput
from resnet_jax.training.reporting.logbook import Logbook
from resnet_jax.training.reporting.outlook import Outlook
from resnet_jax.training.reporting.step_timer import StepTimer
from resnet_jax.training.reporting.trace import Trace

Result = TypeVar("Result")
Diagnose = Callable[[Any, int, float], str | None]


class Reporter:
    """Tells of each event of the loop wherever it is to be seen.

    Args:
      plan: of the run.
      display: the screen.
      logbook: metrics.jsonl and TensorBoard.
      goodput: adds up where the time goes.
      trace: records some of the steps.
      diagnose: (batches, images, seconds) -> a line when steps wait too long for data, else None;
        it is said once.
      outlook: what the first steps say of the whole run.
    """

    def __init__(
        self,
        plan: Plan,
        display: Display,
        logbook: Logbook,
        goodput: Goodput,
        trace: Trace,
        diagnose: Diagnose,
        outlook: Outlook,
    ):
        self.say = display.say
        self._plan, self._display, self._logbook = plan, display, logbook
        self._goodput, self._trace = goodput, trace
        self._diagnose, self._is_diagnosed = diagnose, False
        self._outlook = outlook
        self._timer = StepTimer()
        self._images_per_sec = 0.0

    @contextlib.contextmanager
    def training(self, batches: Batches, step: int) -> Iterator[None]:
        """Tells of the steps inside, from `step` on."""
        self._display.start("training", self._plan.total_steps, step)
        self._timer.start(batches)
        try:
            with self._goodput.spent(STEPS):
                yield
        finally:
            self._trace.stop()
            self._display.stop()
            self._goodput.waited(batches.wait)
            if line := self._timer.line():
                self.say(line)

    def before_step(self, number: int) -> None:
        """Takes note that step `number`, counted from 0, is about to be started."""
        self._trace.before(number)

    def ends_trace_after(self, step: int) -> bool:
        """Whether the trace ends with the step after which `step` are taken."""
        return self._trace.is_over(step - 1)

    def step(self, progress: Progress) -> float:
        """Shows the newest numbers; returns the seconds since the step before."""
        seconds = self._timer.step(self._plan.batch_size)
        for line in self._outlook.step(seconds):
            self.say(line)
        means = progress.window.means()
        self._display.tick(
            numbers={
                "loss": f"{means['loss']:.4f}",
                "top1": f"{means['top1']:.3f}",
                "lr": f"{progress.rate:.3g}",
                "images/s": f"{self._timer.images_per_sec():.0f}",
                "data wait": f"{self._timer.data_wait():.0%}",
            }
        )
        return seconds

    @property
    def has_timed(self) -> bool:
        """Whether a step has been timed since the last line."""
        return self._timer.has_timed

    def log(self, progress: Progress) -> None:
        """Writes the line of the steps since the last one."""
        self._logbook.write(
            {
                "step": progress.step,
                "epoch": self._plan.epoch(progress.step),
                "split": "train",
                **progress.window.means(),
                "examples": progress.window.examples,
                "lr": progress.rate,
                **self._timer.record(),
            }
        )
        self._images_per_sec = self._timer.images_per_sec()
        if not self._is_diagnosed:
            # A process reads its own share of the images.
            images = self._timer.all_examples // jax.process_count()
            line = self._diagnose(self._timer.batches, images, self._timer.all_seconds)
            if line:
                self.say(line)
                self._is_diagnosed = True

    @contextlib.contextmanager
    def evaluating(self, progress: Progress, split: str) -> Iterator[Callable[[MetricSums], None]]:
        """Counts the time inside as evaluating; yields what is to be called with the sums."""
        began = time.monotonic()
        with self._goodput.spent("evaluating"):
            yield lambda scored: self._evaluated(progress, split, scored, began)

    def _evaluated(self, progress: Progress, split: str, scored: MetricSums, began: float) -> None:
        epoch, last = (self._plan.epoch(step) for step in (progress.step, self._plan.total_steps))
        means, beside = progress.scores, progress.scores.get("trained_top1")
        passes = 1 if beside is None else 2
        speed = passes * scored.examples / (time.monotonic() - began)
        self._logbook.write(
            {
                "step": progress.step,
                "epoch": epoch,
                "split": split,
                **means,
                "examples": scored.examples,
                "images_per_sec": round(speed, 1),
            }
        )
        self.say(
            f"[epoch {epoch:g}/{last:g}] train loss {progress.epoch.means()['loss']:.3f} · "
            f"{split} loss {means['loss']:.3f} top1 {means['top1']:.4f} "
            f"({scored.top1}/{scored.examples}) top5 {means['top5']:.4f}"
            + (f" · without the average top1 {beside:.4f}" if beside is not None else "")
            + (f" · {self._images_per_sec:.0f} images/s" if self._images_per_sec else "")
        )

    def saving(self, work: Callable[[], Result]) -> Result:
        """Does work of saving and counts its time as such."""
        with self._goodput.spent("saving"):
            return work()

    def after_visit(self, step: int, paused: bool) -> None:
        """Takes note that what was due after `step` is done, and whether that held up the steps."""
        if self.ends_trace_after(step):
            self._trace.stop()
        if paused:
            self._timer.restart()

    def close(self) -> None:
        """Writes what of the log could not be written before, if it can be now."""
        self._logbook.close()
