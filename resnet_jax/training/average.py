"""A moving average of the parameters and statistics, which is scored and kept in their place."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from resnet_jax.fields import Field, Needs

_AVERAGE = (Needs("decay"),)
FIELDS = {
    "decay": Field(
        0.0,
        "share of itself that the average keeps when it moves; 0: no average",
        at_least=0,
        below=1,
    ),
    "every": Field(1, "steps between its moves", above=0, needs=_AVERAGE),
    "warmup": Field(
        True, "keep no more than (1 + n) / (10 + n) of itself at move n", needs=_AVERAGE
    ),
    "start_epochs": Field(
        0.0,
        "epochs at the start in which it is the parameters themselves",
        at_least=0,
        needs=_AVERAGE,
    ),
    "score_both": Field(
        True,
        "score the parameters beside their average, which doubles an evaluation's cost",
        needs=_AVERAGE,
    ),
}


class Average(struct.PyTreeNode):
    """The moving average of a network's variables.

    Attributes:
      params, batch_stats: as the network has them, and of their types.
      moves: int32 scalar, how often it has moved.
    """

    params: Any
    batch_stats: Any
    moves: jax.Array

    @classmethod
    def create(cls, params: Any, batch_stats: Any) -> "Average":
        """Returns an average that has not moved yet; it shares no memory with its arguments."""
        return cls(params, batch_stats, jnp.zeros((), jnp.int32)).begun_at(params, batch_stats)

    def begun_at(self, params: Any, batch_stats: Any) -> "Average":
        """Returns this average, which has not moved yet, at other variables."""
        params, batch_stats = jax.tree.map(jnp.copy, (params, batch_stats))
        return self.replace(params=params, batch_stats=batch_stats)


Move = Callable[[Average, Any, Any, jax.Array], Average]


def make_move(ema: Mapping[str, Any], steps_per_epoch: int) -> Move | None:
    """Returns what moves the average after each step, None where there is to be none.

    At every `every`-th step, average += (1 - decay) * (variables - average), also for BatchNorm's
    running statistics. With `warmup` the decay of move n, counted from 0, is at most (1 + n) /
    (10 + n), as in TensorFlow's `ExponentialMovingAverage` with `num_updates`, so that the random
    numbers of the start are soon forgotten. `start_epochs` is torchvision's way to the same end:
    until then the average is a copy, and its moves are not counted.

    Args:
      ema: the fields of `FIELDS`.
      steps_per_epoch: steps in one epoch.

    Returns:
      A function of the average, the parameters, the statistics and the number of steps taken.
    """
    if not ema["decay"]:
        return None
    start = round(ema["start_epochs"] * steps_per_epoch)

    def move(average: Average, params: Any, batch_stats: Any, step: jax.Array) -> Average:
        is_due = (step % ema["every"] == 0) & (step > start)
        count = average.moves.astype(float)
        decay = jnp.asarray(ema["decay"], float)
        if ema["warmup"]:
            decay = jnp.minimum(decay, (1 + count) / (10 + count))
        # No branch: a GPU would wait for the host to learn which one to take.
        share = jnp.where(is_due, 1 - decay, 0)

        def follow(old: jax.Array, new: jax.Array) -> jax.Array:
            moved = old + share.astype(old.dtype) * (new - old)
            return jnp.where(step <= start, new, moved) if start else moved

        return Average(
            jax.tree.map(follow, average.params, params),
            jax.tree.map(follow, average.batch_stats, batch_stats),
            average.moves + is_due,
        )

    return move
