"""What a run has logged and noted, read from its workdir."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from resnet_jax import run_files
from resnet_jax.training import schedule
from resnet_jax.training.checkpointing import checkpoint_io
from resnet_jax.training.reporting import curves, logbook

NO_STEPS = "The log has no line on training steps: the run ended before the first was due."


@dataclasses.dataclass(frozen=True)
class Record:
    """A run on disk, but for its network.

    Attributes:
      workdir: where it is.
      name: for people.
      config: its recipe.
      lines: of its log.
      starts: what each start has noted.
    """

    workdir: str
    name: str
    config: ConfigDict
    lines: list[dict[str, Any]]
    starts: list[dict[str, Any]]

    @classmethod
    def read(cls, workdir: str, name: str | None = None) -> "Record":
        """Reads a run.

        Raises:
          UserError: there is none in `workdir`, or a file of it cannot be read.
        """
        path = epath.Path(workdir)
        return cls(
            workdir,
            name or path.resolve().name,
            run_files.read_config(workdir),
            logbook.read(workdir),
            run_files.read_starts(path) or [],
        )

    @functools.cached_property
    def training(self) -> list[dict[str, Any]]:
        """The lines on training steps."""
        return [line for line in self.lines if logbook.is_training(line)]

    @functools.cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """The lines on evaluations, of which a step has one."""
        lines = [line for line in self.lines if not logbook.is_training(line)]
        return list({line["step"]: line for line in lines}.values())

    @functools.cached_property
    def epochs(self) -> curves.Epochs:
        return curves.by_epoch(self.lines, self.config.batch_size)

    @property
    def last_start(self) -> dict[str, Any]:
        return self.starts[-1] if self.starts else {}

    @property
    def step(self) -> int:
        """The last step that the log knows of."""
        return self.lines[-1]["step"] if self.lines else 0

    @functools.cached_property
    def steps_per_epoch(self) -> int | None:
        """Steps in an epoch; None where neither a start nor the log, which rounds, tells."""
        if images := self.last_start.get("train_images"):
            return max(1, images // self.config.batch_size)
        for line in reversed(self.lines):
            if line.get("epoch"):
                return max(1, round(line["step"] / line["epoch"]))
        return None

    @property
    def total_steps(self) -> int | None:
        """How long the run is meant to be; None where that is not known."""
        steps = self.steps_per_epoch
        return None if steps is None else max(1, round(self.config.num_epochs * steps))

    @property
    def is_finished(self) -> bool:
        if not self.evaluations:
            return False
        last, goal = self.evaluations[-1], self.config.stop_at_top1
        is_reached = goal is not None and last["top1"] >= goal
        return is_reached or bool(self.total_steps and last["step"] >= self.total_steps)

    @property
    def status(self) -> str:
        """How far the run came, for people."""
        if not self.lines:
            return "nothing logged yet"
        if self.is_finished:
            return f"finished after {self.step:,} steps"
        whole = f" of {self.total_steps:,}" if self.total_steps else ""
        epoch = f"{self.lines[-1]['epoch']:.2f} of {self.config.num_epochs:g}"
        return f"not finished: the log ends at step {self.step:,}{whole}, epoch {epoch}"

    def evaluation(self, step: int) -> dict[str, Any] | None:
        """Returns the evaluation after a step; None where there was none."""
        return next((line for line in self.evaluations if line["step"] == step), None)

    def best(self) -> dict[str, Any] | None:
        """Returns the evaluation of the best checkpoint, by its rank; None before the first."""
        metric = self.config.checkpoint.best_metric
        latest_first = reversed(self.evaluations)
        return max(latest_first, key=lambda line: checkpoint_io.rank(line, metric), default=None)

    def rate(self) -> Callable[[Any], Any] | None:
        """Returns the planned learning rate of a step; None where the length is not known."""
        if self.steps_per_epoch is None or self.total_steps is None:
            return None
        config = self.config
        peak = schedule.peak_rate(config.schedule, config.batch_size, config.optimizer.name)
        return schedule.make_schedule(config.schedule, peak, self.steps_per_epoch, self.total_steps)
