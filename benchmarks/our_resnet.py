"""This project as a contestant: its own training step, bare, on the first device of JAX."""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import our_variants
from benchmarks.contest import network
from resnet_jax.distributed.mesh import make_mesh, replicated, shard_batch
from resnet_jax.training.loss import softmax_cross_entropy
from resnet_jax.training.optimizer import FIELDS, make_optimizer
from resnet_jax.training.state import create_state
from resnet_jax.training.step import make_train_step

RATE = 0.1


class Mean(NamedTuple):
    """A batch's mean loss, divided only when it is asked for: a division on the device would be a
    program more.
    """

    total: jax.Array
    examples: int

    def __float__(self) -> float:
        return float(self.total) / self.examples


class Training:
    """Takes a training step on one batch at each call and returns the loss; the first call
    compiles.

    Attributes:
      compiled: the compiled step, after the first call.
    """

    def __init__(self, step: Any, state: Any, batch: Any, requests: Any):
        self.compiled = None
        self._step, self._state, self._batch, self._wishes = step, state, batch, requests

    def __call__(self) -> Mean:
        if self.compiled is None:
            self.compiled = self._step.lower(self._state, self._batch, self._wishes).compile()
        self._state, metrics = self.compiled(self._state, self._batch, self._wishes)
        return Mean(metrics.sums["loss"], len(self._batch["labels"]))


def make_step(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    dtype: str = "float32",
    variant: str | None = None,
) -> Training:
    """See `contest`.

    Args:
      name: of the network, see `contest.network`.
      images: [N, H, W, C], float32.
      labels: [N].
      num_classes: of the classifier.
      dtype: of the computation.
      variant: one of `our_variants.FORMULATIONS`, instead of the library's own formulation. It
        holds for the rest of the process.
    """
    mesh = make_mesh(jax.devices()[:1])
    model = network(name, num_classes=num_classes, dtype=dtype)
    if variant:
        model, images = our_variants.FORMULATIONS[variant](model, images)
    fields = {name: field.default for name, field in FIELDS.items()}
    optimizer = make_optimizer(fields, lambda step: RATE)
    state = create_state(model, optimizer, images.shape[1:], seed=0, sharding=replicated(mesh))

    def augment(batch):
        return batch["images"], jax.nn.one_hot(batch["labels"], num_classes)

    step = make_train_step(
        model, optimizer, augment, softmax_cross_entropy, lambda step: RATE, mesh, seed=0
    )
    batch = {"images": images, "labels": labels, "mask": np.ones(len(labels), bool)}
    requests = shard_batch(mesh, {"requests": np.zeros((1, 2), np.int32)})["requests"]
    return Training(step, state, shard_batch(mesh, batch), requests)
