"""Everything that a training step changes, and the seed that it draws from."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class LossScale:
    """Dynamic loss scale for float16 (Micikevicius et al. 2018, section 3.2).

    Halved by a step whose gradients overflow, which is then skipped; doubled after `GROW_AFTER`
    good ones, up to `LARGEST`.
    """

    GROW_AFTER: ClassVar[int] = 2000
    # Gradients that underflow with this one are lost anyway. Without a bound a scale would grow to
    # infinity where gradients are zero, and half of infinity is infinity.
    LARGEST: ClassVar[float] = 2.0**24

    scale: jax.Array
    good_steps: jax.Array

    @classmethod
    def create(cls) -> "LossScale":
        return cls(scale=jnp.float32(2.0**16), good_steps=jnp.int32(0))

    def after(self, is_finite: jax.Array) -> "LossScale":
        """Returns the scale for the next step, given whether this step's gradients were finite."""
        good_steps = jnp.where(is_finite, self.good_steps + 1, 0)
        grow = good_steps == self.GROW_AFTER
        factor = jnp.where(is_finite, jnp.where(grow, 2.0, 1.0), 0.5).astype(jnp.float32)
        scale = jnp.minimum(self.scale * factor, self.LARGEST)
        return LossScale(scale, jnp.where(grow, 0, good_steps))


class TrainState(struct.PyTreeNode):
    """The state of training after `step` steps.

    Attributes:
      step: int32 scalar, the number of steps taken.
      params: the network's parameters.
      batch_stats: BatchNorm's running statistics; {} without BatchNorm.
      opt_state: the optimizer's state.
      loss_scale: for float16; None in other precisions.
      seed: from `seeds.seed_words`. It is data, not a constant of the program, so that another seed
        compiles nothing again; the recipe has it, so that no checkpoint needs to.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    loss_scale: LossScale | None
    seed: jax.Array

    @property
    def eval_variables(self) -> dict[str, Any]:
        """The variables that evaluation, restoring and exporting use."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    def saved(self) -> dict[str, Any]:
        """Returns what a checkpoint holds: all but the seed."""
        return {
            "step": self.step,
            "params": self.params,
            "batch_stats": self.batch_stats,
            "opt_state": self.opt_state,
            "loss_scale": self.loss_scale,
        }
