"""Knowledge distillation: a trained network's logits as a second target (Hinton et al. 2015)."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from resnet_jax.fields import Field, Needs

if TYPE_CHECKING:
    from jaxtyping import Float

_TEACHER = (Needs("teacher"),)
FIELDS = {
    "teacher": Field(
        None, "whose logits are learned too: a run, a file of weights, or a repository's name", str
    ),
    "network": Field(
        None, "of a teacher that is a file: its name in list_models", str, needs=_TEACHER
    ),
    "temperature": Field(1.0, "what the logits of both are divided by", above=0, needs=_TEACHER),
    "weight": Field(
        0.5,
        "share of the loss that is the distance to the teacher",
        above=0,
        at_most=1,
        needs=_TEACHER,
    ),
    "digest": Field(
        None, "SHA-256 of the teacher; filled when the run begins", str, needs=_TEACHER
    ),
}


def distance(
    logits: "Float[jax.Array, 'n k']", taught: "Float[jax.Array, 'n k']", temperature: float
) -> "Float[jax.Array, ' n']":
    """Returns T^2 times the Kullback-Leibler divergence of two networks at temperature T.

    That of softmax(logits / T) from softmax(taught / T), in nats. With the factor T^2 its gradient
    keeps its size when T changes (Hinton et al. 2015, section 2).

    Args:
      logits: of the network that learns.
      taught: of the teacher.
      temperature: T.
    """
    target = jax.nn.log_softmax(taught / temperature)
    learned = jax.nn.log_softmax(logits / temperature)
    return temperature**2 * jnp.sum(jnp.exp(target) * (target - learned), axis=-1)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What a teacher adds to a step.

    Attributes:
      teach: (the teacher's variables, images as the network takes them) -> logits [N, K].
      temperature, weight: the fields of `FIELDS`.
    """

    teach: Callable[[Any, jax.Array], jax.Array]
    temperature: float
    weight: float

    def mix(
        self,
        losses: "Float[jax.Array, ' n']",
        logits: "Float[jax.Array, 'n k']",
        taught: "Float[jax.Array, 'n k']",
    ) -> "Float[jax.Array, ' n']":
        """Returns (1 - weight) * losses + weight * `distance`."""
        apart = distance(logits, taught.astype(logits.dtype), self.temperature)
        return (1 - self.weight) * losses + self.weight * apart
