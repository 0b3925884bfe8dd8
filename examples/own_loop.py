"""A training loop of your own round one of these networks: Flax, optax and `shard_map`, no more.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/own_loop.py

Each device has its share of the batch; BatchNorm averages its statistics over the axis named, and
the loss averages over it before it is differentiated, so that the gradients are the whole batch's.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from resnet_jax import create_model

AXIS = "batch"


def make_step(model: nn.Module, optimizer: optax.GradientTransformation, mesh: Mesh):
    """Returns step(variables, opt_state, images, labels, key) -> (variables, opt_state, loss)."""

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(), P(AXIS), P(AXIS), P()),
        out_specs=(P(), P(), P()),
    )
    def step(variables, opt_state, images, labels, key):
        rngs = {"dropout": jax.random.fold_in(key, lax.axis_index(AXIS))}

        def mean_loss(params):
            logits, updates = model.apply(
                {**variables, "params": params}, images, True, mutable=["batch_stats"], rngs=rngs
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return lax.pmean(losses.mean(), AXIS), updates

        graded = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, updates), gradients = graded(variables["params"])
        changes, opt_state = optimizer.update(gradients, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], changes)
        return {"params": params, **updates}, opt_state, loss

    return jax.jit(step, donate_argnums=(0, 1))


def train(steps: int = 20, learning_rate: float = 1e-2) -> list[float]:
    """Learns 64 random images by heart, on all devices; returns the loss of each step."""
    mesh = jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))
    # One block a stage, to compile in seconds; without `stage_sizes` it is ResNet-20.
    sizes, dropped = (1, 1, 1), 0.1
    model = create_model(
        "cifar_resnet20", stage_sizes=sizes, remat="block", axis_name=AXIS, stochastic_depth=dropped
    )
    images = jax.random.normal(jax.random.key(0), (64, 32, 32, 3))
    labels = jnp.arange(64) % 10
    variables = jax.jit(model.init)(jax.random.key(1), images[:1])
    optimizer = optax.adam(learning_rate)
    opt_state = optimizer.init(variables["params"])
    step, losses = make_step(model, optimizer, mesh), []
    for key in jax.random.split(jax.random.key(2), steps):
        variables, opt_state, loss = step(variables, opt_state, images, labels, key)
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    print(jax.device_count(), "devices:", *(f"{loss:.2f}" for loss in train()))
