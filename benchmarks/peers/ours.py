"""This project as a contestant: its own training step, bare, on the first device of JAX."""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.harness import network
from resnet_jax.distributed.mesh import make_mesh, replicated, shard_batch
from resnet_jax.training.loss import softmax_cross_entropy
from resnet_jax.training.optimizer import FIELDS, make_optimizer
from resnet_jax.training.state import create_state
from resnet_jax.training.step import make_train_step

RATE = 0.1


class Mean(NamedTuple):
    """A batch's mean loss, divided only when it is asked for: on the device that were a program."""

    total: jax.Array
    examples: int

    def __float__(self) -> float:
        return float(self.total) / self.examples


class Training:
    """Takes a step on one batch at each call and returns the loss; the first call compiles.

    Attributes:
      compiled: the compiled step, after the first call.
    """

    def __init__(self, step: Any, state: Any, *batch: Any):
        self.compiled = None
        self._step, self._state, self._batch = step, state, batch

    def __call__(self) -> Mean:
        if self.compiled is None:
            self.compiled = self._step.lower(self._state, *self._batch).compile()
        self._state, metrics = self.compiled(self._state, *self._batch)
        return Mean(metrics.sums["loss"], len(self._batch[0]["labels"]))


def make_step(
    name: str, images: np.ndarray, labels: np.ndarray, num_classes: int, *, dtype: str = "float32"
) -> Training:
    """See `harness`; `dtype` is that of the computation, parameters are float32."""
    mesh = make_mesh(jax.devices()[:1])
    model = network(name, num_classes=num_classes, dtype=dtype)
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
