"""This project as a contestant: its own training step, bare, on the first device of JAX."""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.harness import network
from resnet_jax.distributed.mesh import make_mesh, shard_batch
from resnet_jax.seeds import seed_words
from resnet_jax.training.loss import softmax_cross_entropy
from resnet_jax.training.optimizer import FIELDS, make_optimizer
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import train_step

RATE = 0.1


class Mean(NamedTuple):
    """A batch's mean loss, divided only when it is asked for: on the device that were a program."""

    total: jax.Array
    examples: int

    def __float__(self) -> float:
        return float(self.total) / self.examples


class Training:
    """Takes a step on one batch at each call; `compiled` is the step's program."""

    def __init__(self, step: Any, state: TrainState, batch: dict[str, jax.Array]):
        self.compiled = step.lower(state, batch).compile()
        self._state, self._batch = state, batch

    def __call__(self) -> Mean:
        self._state, metrics = self.compiled(self._state, self._batch)
        return Mean(metrics.sums["loss"], len(self._batch["mask"]))


def make_step(
    name: str, images: np.ndarray, labels: np.ndarray, num_classes: int, *, dtype: str = "float32"
) -> Training:
    """See `harness`; `dtype` is that of the computation, parameters are float32."""
    mesh = make_mesh(jax.devices()[:1])
    model = network(name, num_classes=num_classes, dtype=dtype)
    fields = {name: field.default for name, field in FIELDS.items()}
    optimizer = make_optimizer(fields, lambda step: RATE)

    @jax.jit
    def create_state(key):
        variables = {"batch_stats": {}, **model.init(key, images[:1], train=False)}
        opt_state = optimizer.init(variables["params"])
        return TrainState(
            np.int32(0), **variables, opt_state=opt_state, loss_scale=None, seed=seed_words(0)
        )

    def step(state, batch):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return train_step(
                state,
                batch,
                model=model,
                optimizer=optimizer,
                augment=lambda batch, seed: (
                    batch["image"],
                    jax.nn.one_hot(batch["label"], num_classes),
                ),
                loss=softmax_cross_entropy,
                schedule=lambda step: RATE,
            )

    batch = {"image": images, "label": labels, "mask": np.ones(len(labels), bool)}
    state = create_state(jax.random.key(0))
    return Training(jax.jit(step, donate_argnums=0), state, shard_batch(mesh, batch))
