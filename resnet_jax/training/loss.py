"""Losses of logits against target distributions, one number an example."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.fields import Field

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


def softmax_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns [N]: cross-entropy of targets [N, K] under softmax of logits [N, K], in nats."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns [N]: the mean over classes of the binary cross-entropies, in nats (Wightman et al.
    2021).
    """
    return -jnp.mean(
        targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits), axis=-1
    )


LOSSES = {"softmax": softmax_cross_entropy, "bce": binary_cross_entropy}


def smooth(targets: jax.Array, label_smoothing: float) -> jax.Array:
    """Spreads a share of each target [N, K] evenly over its classes (Szegedy et al. 2016, section
    7).
    """
    return targets * (1 - label_smoothing) + label_smoothing / targets.shape[-1]


def make_loss(loss: Mapping[str, Any]):
    """Returns the training loss: (logits [N, K], targets [N, K]) -> [N]."""
    function = LOSSES[loss["name"]]
    return lambda logits, targets: function(logits, smooth(targets, loss["label_smoothing"]))
