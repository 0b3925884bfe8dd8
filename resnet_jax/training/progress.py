"""How far a run is: what the loop adds up, and a checkpoint keeps beside the arrays."""

import dataclasses
from typing import Any

from resnet_jax.training.checkpointing.checkpoint_io import Notes
from resnet_jax.training.metrics import MetricSums


@dataclasses.dataclass
class Progress:
    """What a resumed run goes on with, so that its log is that of an undisturbed one.

    Attributes:
      step: steps taken, whose metrics are all in the sums.
      scores: the evaluation made at this step, {} if there was none.
      epoch: sums over the epoch so far.
      window: sums since the last line of the log.
      best: the best evaluation so far with its "step"; None before the first.
      rate: the learning rate of the last step.
    """

    step: int = 0
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    epoch: MetricSums = dataclasses.field(default_factory=MetricSums)
    window: MetricSums = dataclasses.field(default_factory=MetricSums)
    best: dict[str, float] | None = None
    rate: float = 0.0

    def to_notes(self) -> Notes:
        """Returns the form in which a checkpoint keeps it."""
        meters: dict[str, Any] = {
            "epoch": self.epoch.as_dict(),
            "window": self.window.as_dict(),
            "best": self.best,
        }
        return Notes(self.step, self.scores, meters)

    @classmethod
    def from_notes(cls, notes: Notes) -> "Progress":
        """Reads what `to_notes` made."""
        return cls(
            step=notes.step,
            scores=dict(notes.scores),
            epoch=MetricSums(**notes.meters["epoch"]),
            window=MetricSums(**notes.meters["window"]),
            best=notes.meters["best"],
        )
