"""This project as a contestant: its own training step, bare, on the first device of JAX."""

from functools import partial

import jax
import numpy as np

from benchmarks.harness import Array, Step, network
from resnet_jax.distributed.mesh import make_mesh, shard_batch
from resnet_jax.seeds import seed_words
from resnet_jax.training.loss import softmax_cross_entropy
from resnet_jax.training.optimizer import FIELDS, make_optimizer
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import train_step


def make_step(name: str, images: Array, labels: Array, num_classes: int, dtype: str) -> Step:
    """See `harness`; the loss is the batch's sum, and `.compiled` of the step is its program."""
    model = network(name, num_classes=num_classes, dtype=dtype)
    fields, rate = {name: field.default for name, field in FIELDS.items()}, lambda step: 0.1
    optimizer = make_optimizer(fields, rate)
    batch = {"image": images, "label": labels, "mask": np.ones(len(labels), bool)}
    batch = shard_batch(make_mesh(jax.devices()[:1]), batch)

    @jax.jit
    def create_state(key):
        variables = {"batch_stats": {}, **model.init(key, images[:1], train=False)}
        others = {"opt_state": optimizer.init(variables["params"]), "loss_scale": None}
        return TrainState(step=np.int32(0), seed=seed_words(0), **variables, **others)

    def augment(batch, seed):
        return batch["image"], jax.nn.one_hot(batch["label"], num_classes)

    step = partial(train_step, model=model, optimizer=optimizer, augment=augment)
    step = partial(step, loss=softmax_cross_entropy, schedule=rate)
    state = create_state(jax.random.key(0))
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()

    def run() -> jax.Array:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics.sums["loss"]

    run.compiled = compiled
    return run
