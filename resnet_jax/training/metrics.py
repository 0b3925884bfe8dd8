"""Sums over examples on the device, and their means on the host."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Num

# Behind any place that counts as a hit, also where there are fewer classes than such places.
_NO_HIT = 1_000_000


def example_sums(
    logits: "Float[jax.Array, 'n k']",
    targets: "Float[jax.Array, 'n k']",
    losses: "Float[jax.Array, ' n']",
    mask: "Bool[jax.Array, ' n']",
) -> "dict[str, Num[jax.Array, '']]":
    """Sums a batch's losses and hits; masked examples count for nothing.

    An example is a top-k hit when fewer than k classes come before its target in the order of
    falling logits, equal logits in the order of the classes. A target that mixes classes stands for
    its largest.

    Args:
      logits, losses: what the network and the loss made of the batch.
      targets: rows that sum to one.
      mask: True where the example counts.

    Returns:
      "loss" (float), "top1", "top5" and "examples" (int32): sums over the batch.
    """
    label = jnp.argmax(targets, axis=-1)[:, None]
    true_logit = jnp.take_along_axis(logits, label, axis=-1)
    classes = jnp.arange(logits.shape[-1])
    ahead = (logits > true_logit) | ((logits == true_logit) & (classes < label))
    # NaN compares False with everything, which would make it a hit.
    rank = jnp.where(jnp.isnan(logits).any(-1), _NO_HIT, jnp.sum(ahead, axis=-1))

    def count(hits: jax.Array) -> jax.Array:
        return jnp.sum(hits & mask, dtype=jnp.int32)

    return {
        "loss": jnp.sum(jnp.where(mask, losses, 0)),
        "top1": count(rank < 1),
        "top5": count(rank < 5),
        "examples": count(jnp.ones_like(mask)),
    }


@dataclasses.dataclass
class MetricSums:
    """Running sums of `example_sums` in double precision, kept across a resume through
    `as_dict`.
    """

    loss: float = 0.0
    top1: int = 0
    top5: int = 0
    examples: int = 0

    def add(self, sums: Mapping[str, jax.Array | float]) -> None:
        self.loss += float(sums["loss"])
        self.top1 += int(sums["top1"])
        self.top5 += int(sums["top5"])
        self.examples += int(sums["examples"])

    def means(self) -> dict[str, float]:
        """Returns the mean "loss" and the "top1" and "top5" fractions; NaN when nothing was
        added.
        """
        sums = {"loss": self.loss, "top1": self.top1, "top5": self.top5}
        return {
            name: total / self.examples if self.examples else math.nan
            for name, total in sums.items()
        }

    def as_dict(self) -> dict[str, float]:
        return dataclasses.asdict(self)
