"""Losses of logits against target distributions, one number an example."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from resnet_jax.fields import Field

if TYPE_CHECKING:
    from jaxtyping import Float

FIELDS = {
    "name": Field(
        "softmax",
        "cross-entropy over classes, or one binary cross-entropy a class",
        choices=("softmax", "bce"),
    ),
    "label_smoothing": Field(
        0.0, "share of the target spread evenly over the classes", at_least=0, below=1
    ),
}


def softmax_cross_entropy(
    logits: "Float[jax.Array, 'n k']", targets: "Float[jax.Array, 'n k']"
) -> "Float[jax.Array, ' n']":
    """Returns each example's cross-entropy of targets under softmax of logits, in nats."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def binary_cross_entropy(
    logits: "Float[jax.Array, 'n k']", targets: "Float[jax.Array, 'n k']"
) -> "Float[jax.Array, ' n']":
    """Returns each example's mean over classes of the binary cross-entropies, in nats.

    Wightman et al. 2021, section 2.
    """
    return -jnp.mean(
        targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits), axis=-1
    )


LOSSES = {"softmax": softmax_cross_entropy, "bce": binary_cross_entropy}


def smooth(targets: "Float[jax.Array, 'n k']", label_smoothing: float) -> "Float[jax.Array, 'n k']":
    """Spreads a share of each target evenly over its classes (Szegedy et al. 2016, section 7)."""
    return targets * (1 - label_smoothing) + label_smoothing / targets.shape[-1]


def make_loss(loss: Mapping[str, Any]):
    """Returns the training loss: (logits [N, K], targets [N, K]) -> [N]."""
    function = LOSSES[loss["name"]]
    return lambda logits, targets: function(logits, smooth(targets, loss["label_smoothing"]))
