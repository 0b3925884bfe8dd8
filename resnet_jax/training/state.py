"""Everything that a training step changes."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Sharding


@struct.dataclass
class LossScale:
    """Dynamic loss scale for float16 (Micikevicius et al. 2018, section 3.2).

    Halved by a step whose gradients overflow, which is then skipped; doubled after `GROW_AFTER`
    good ones.
    """

    GROW_AFTER: ClassVar[int] = 2000

    scale: jax.Array
    good_steps: jax.Array

    @classmethod
    def create(cls) -> "LossScale":
        return cls(scale=jnp.float32(2.0**16), good_steps=jnp.int32(0))

    def after(self, sound: jax.Array) -> "LossScale":
        """Returns the scale for the next step, given whether this step's gradients were finite."""
        good_steps = jnp.where(sound, self.good_steps + 1, 0)
        grow = good_steps == self.GROW_AFTER
        factor = jnp.where(sound, jnp.where(grow, 2.0, 1.0), 0.5).astype(jnp.float32)
        return LossScale(self.scale * factor, jnp.where(grow, 0, good_steps))


@struct.dataclass
class TrainState:
    """The state of training after `step` steps.

    Attributes:
      step: int32 scalar, the number of steps taken.
      params: the network's parameters.
      batch_stats: BatchNorm's running statistics; {} without BatchNorm.
      opt_state: the optimizer's state.
      loss_scale: for float16; None in other precisions.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    loss_scale: LossScale | None = None

    @property
    def variables(self) -> dict[str, Any]:
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    seed: int,
    sharding: Sharding | None = None,
    float16: bool = False,
) -> TrainState:
    """Initialises the state, every array born where `sharding` puts it.

    Args:
      model: the network.
      optimizer: what will update it.
      image_shape: (H, W, C).
      seed: of the initial parameters.
      sharding: of every array; None leaves it to JAX.
      float16: whether to add a loss scale.
    """

    def create(key: jax.Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape)), train=False)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(variables["params"]),
            loss_scale=LossScale.create() if float16 else None,
        )

    # XLA:CPU takes about a second to optimise each draw of random numbers, and this program runs
    # once.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}
    return jax.jit(create, out_shardings=sharding, compiler_options=options)(jax.random.key(seed))
