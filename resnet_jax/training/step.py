"""One step of training and one of evaluation, each a single compiled program over the mesh."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from resnet_jax.training.metrics import example_sums
from resnet_jax.training.optimizer import schedule_at
from resnet_jax.training.schedule import Schedule
from resnet_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
Augment = Callable[[Batch], tuple[jax.Array, jax.Array]]
Loss = Callable[[jax.Array, jax.Array], jax.Array]


@struct.dataclass
class Metrics:
    """What a step tells the host.

    Attributes:
      sums: from `example_sums`.
      requests: int32 [2], the largest request of any process: exit status to stop with, whether to
        save.
      rate: the learning rate of the step; zero in evaluation.
      sound: whether loss and gradients were finite (in float16: or the loss scale can still
        shrink).
    """

    sums: dict[str, jax.Array]
    requests: jax.Array
    rate: jax.Array
    sound: jax.Array


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    loss: Loss,
    rate: Schedule,
    mesh: Mesh,
    *,
    seed: int,
    accumulate_steps: int = 1,
):
    """Builds the training step.

    With `accumulate_steps` = k the batch goes through the network in k parts, part i being the rows
    i, i + k, ..., so that every device keeps its own rows. The gradient is that of the undivided
    batch, but for BatchNorm, whose statistics are those of each part, its running statistics moving
    k times.

    Args:
      model: the network; logits [N, K].
      optimizer: from `make_optimizer`.
      augment: the device's part of the data path: batch -> images [N, H, W, C] and targets [N, K].
      loss: from `make_loss`.
      rate: from `make_schedule`, as the optimizer has it; reported with the metrics.
      mesh: the devices.
      seed: of dropout and stochastic depth, folded with the step.
      accumulate_steps: parts that a batch goes through in; divides the batch of each device.

    Returns:
      A jitted function (state, batch, requests) -> (state, `Metrics`) that donates the state.
    """

    def part_gradients(state: TrainState, batch_stats, part, key, examples):
        def objective(params):
            logits, changes = model.apply(
                {"params": params, "batch_stats": batch_stats},
                part["images"],
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            losses = loss(logits, part["targets"])
            mean = jnp.sum(jnp.where(part["mask"], losses, 0)) / examples
            scaled = mean if state.loss_scale is None else mean * state.loss_scale.scale
            sums = example_sums(logits, part["targets"], losses, part["mask"])
            return scaled, (changes.get("batch_stats", {}), sums)

        return jax.grad(objective, has_aux=True)(state.params)

    def accumulated_gradients(state: TrainState, whole, key, examples):
        def split(rows):
            return jnp.swapaxes(rows.reshape(-1, accumulate_steps, *rows.shape[1:]), 0, 1)

        def body(carry, part_and_number):
            gradients, batch_stats = carry
            part, number = part_and_number
            more, (batch_stats, sums) = part_gradients(
                state, batch_stats, part, jax.random.fold_in(key, number), examples
            )
            return (jax.tree.map(jnp.add, gradients, more), batch_stats), sums

        start = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats)
        parts = jax.tree.map(split, whole)
        (gradients, batch_stats), sums = jax.lax.scan(
            body, start, (parts, jnp.arange(accumulate_steps))
        )
        return gradients, (
            batch_stats,
            jax.tree.map(lambda rows: jnp.sum(rows, axis=0, dtype=rows.dtype), sums),
        )

    def step(state: TrainState, batch: Batch, requests: jax.Array) -> tuple[TrainState, Metrics]:
        images, targets = augment(batch)
        whole = {"images": images, "targets": targets, "mask": batch["mask"]}
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        examples = jnp.maximum(jnp.sum(batch["mask"]), 1)
        if accumulate_steps == 1:
            gradients, (batch_stats, sums) = part_gradients(
                state, state.batch_stats, whole, key, examples
            )
        else:
            gradients, (batch_stats, sums) = accumulated_gradients(state, whole, key, examples)

        if state.loss_scale is not None:
            gradients = jax.tree.map(lambda g: g / state.loss_scale.scale, gradients)
        sound = jnp.isfinite(optax.tree.norm(gradients)) & jnp.isfinite(sums["loss"])
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        after = state.replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            batch_stats=batch_stats,
        )
        if state.loss_scale is not None:
            after = jax.tree.map(lambda new, old: jnp.where(sound, new, old), after, state)
            after = after.replace(
                opt_state=schedule_at(after.opt_state, state.step + 1),
                loss_scale=state.loss_scale.after(sound),
            )
            sound |= state.loss_scale.scale > 1
        return after.replace(step=state.step + 1), Metrics(
            sums, jnp.max(requests, axis=0), rate(state.step), sound
        )

    whole, rows = mesh.replicated(mesh), mesh.split_by_batch(mesh)
    return jax.jit(step, in_shardings=(whole, rows, rows), out_shardings=whole, donate_argnums=0)


def make_eval_step(model: nn.Module, augment: Augment, loss: Loss, mesh: Mesh):
    """Builds the evaluation step.

    Args:
      model: the network.
      augment: batch -> images [N, H, W, C] and targets [N, K]; for evaluation it only normalises.
      loss: (logits, targets) -> [N], without label smoothing.
      mesh: the devices.

    Returns:
      A jitted function (variables, batch, requests) -> `Metrics`, the sums over the batch's
      unmasked rows.
    """

    def step(variables: dict[str, Any], batch: Batch, requests: jax.Array) -> Metrics:
        images, targets = augment(batch)
        logits = model.apply(variables, images, train=False)
        sums = example_sums(logits, targets, loss(logits, targets), batch["mask"])
        return Metrics(sums, jnp.max(requests, axis=0), jnp.zeros(()), jnp.isfinite(sums["loss"]))

    whole, rows = mesh.replicated(mesh), mesh.split_by_batch(mesh)
    return jax.jit(step, in_shardings=(whole, rows, rows), out_shardings=whole)
