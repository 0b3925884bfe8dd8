"""One step of training and one of evaluation.

Both are plain functions of arrays. What a recipe decides comes by keyword, is bound once with
`functools.partial`, and the result is jitted where it is used (`Experiment`): there, a step is
`train_step(state, batch) -> (state, metrics)` and `eval_step(variables, batch) -> metrics`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from resnet_jax.seeds import seed_key
from resnet_jax.training.average import Move
from resnet_jax.training.distillation import Distillation
from resnet_jax.training.metrics import example_sums
from resnet_jax.training.optimizer import schedule_at
from resnet_jax.training.schedule import Schedule
from resnet_jax.training.state import TrainState

if TYPE_CHECKING:
    from jaxtyping import Float

Batch = Mapping[str, jax.Array]
Augment = Callable[[Batch, jax.Array], tuple[jax.Array, jax.Array]]
Loss = Callable[[jax.Array, jax.Array], jax.Array]


@struct.dataclass
class Metrics:
    """What a step tells the host.

    Attributes:
      sums: from `example_sums`; zeros for a step that was skipped.
      rate: the learning rate of the step.
      is_finite: whether loss and gradients were (in float16: or the loss scale can still shrink).
    """

    sums: dict[str, jax.Array]
    rate: jax.Array
    is_finite: jax.Array


@struct.dataclass
class EvalMetrics:
    """What `eval_step` tells the host.

    Attributes:
      sums: from `example_sums`.
    """

    sums: dict[str, jax.Array]


@struct.dataclass
class Scores(EvalMetrics):
    """What `score_step` tells the host.

    Attributes:
      label, mask: those of the batch.
      prediction: int32 [N], the class of the highest logit; -1 where a logit is no number.
      confidence: [N], its probability by softmax; 0 where a logit is no number.
      index: int32 [N], the place of each example in its split.
    """

    label: jax.Array
    mask: jax.Array
    prediction: jax.Array
    confidence: jax.Array
    index: jax.Array


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    loss: Loss,
    schedule: Schedule,
    accumulate_steps: int = 1,
    frozen: Any = None,
    distillation: Distillation | None = None,
    move_average: Move | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one step.

    Args:
      state: before the step.
      batch: from a loader: "image" uint8 [N, H, W, C], "label", "mask", "index", "epoch" [N].
      model: the network; images [N, H, W, C] -> logits [N, K].
      optimizer: from `make_optimizer`.
      augment: (batch, seed words) -> images and targets [N, K]; the device's part of the data path.
      loss: (logits, targets) -> [N], from `make_loss`.
      schedule: the learning rate of a step, as the optimizer has it; reported with the metrics.
      accumulate_steps: how many parts the batch goes through the network in, see `gradients_of`.
      frozen: tree of bools, the parameters that stay as they are and get no gradient; None: none.
      distillation: what the state's teacher adds to the loss; None: there is none.
      move_average: from `average.make_move`; None: there is no average.

    Returns:
      The state after the step, and `Metrics`.
    """
    images, targets = augment(batch, state.seed)
    examples = {"images": images, "targets": targets, "mask": batch["mask"]}
    gradients, batch_stats, sums = gradients_of(
        state, examples, model, loss, accumulate_steps, frozen, distillation
    )
    # The loss was scaled up, so that small gradients do not vanish in float16.
    if state.loss_scale is not None:
        scale = state.loss_scale.scale
        gradients = jax.tree.map(lambda g: g / scale, gradients)
    is_finite = all_finite(gradients) & jnp.isfinite(sums["loss"])

    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # Bit by bit as they were, whatever an update of zero would have made of them.
    if frozen is not None:
        params = _held(frozen, state.params, params)
    new = state.replace(params=params, opt_state=opt_state, batch_stats=batch_stats)
    if state.loss_scale is not None:
        new = skip_overflow(state, new, is_finite)
        # A skipped step has no loss that means anything, so the log leaves it out.
        sums = jax.tree.map(lambda total: jnp.where(is_finite, total, 0), sums)
        # A scale of 1 or less has nothing left to give: then the gradients themselves overflow.
        is_finite |= state.loss_scale.scale > 1
    new = new.replace(step=state.step + 1)
    if move_average is not None and state.ema is not None:
        ema = move_average(state.ema, new.params, new.batch_stats, new.step)
        new = new.replace(ema=ema)
    return new, Metrics(sums, schedule(state.step), is_finite)


def gradients_of(
    state: TrainState,
    examples: Batch,
    model: nn.Module,
    loss: Loss,
    accumulate_steps: int = 1,
    frozen: Any = None,
    distillation: Distillation | None = None,
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """Returns the gradient of the mean loss, the moved statistics, and the sums of the metrics.

    With `accumulate_steps` = k the batch goes through the network in k parts, part i being the
    rows i, i + k, ..., so that every device keeps its own rows. The gradient is that of the
    undivided batch, but for BatchNorm: its statistics are those of each part, and its running
    statistics move k times.

    Args:
      state: parameters, statistics, seed and step.
      examples: "images" [N, H, W, C], "targets" [N, K], "mask" [N].
      model, loss: as in `train_step`.
      accumulate_steps: k; divides the batch of each device.
      frozen: as in `train_step`; the gradient of such a parameter is zero, and not computed.
      distillation: as in `train_step`.
    """
    part_gradients = functools.partial(
        _part_gradients, state, model=model, loss=loss, frozen=frozen, distillation=distillation
    )
    # From seed and step alone, so that a resumed run draws what an undisturbed one does.
    rng = jax.random.fold_in(seed_key(state.seed), state.step)
    # Of the whole batch, also for a part of it: then the parts' gradients add up to the batch's.
    count = jnp.maximum(jnp.sum(examples["mask"]), 1)
    if accumulate_steps == 1:
        return part_gradients(state.batch_stats, examples, rng, count)

    def split(rows: jax.Array) -> jax.Array:
        return jnp.swapaxes(rows.reshape(-1, accumulate_steps, *rows.shape[1:]), 0, 1)

    def add_part(carry, part_and_number):
        gradients, batch_stats = carry
        part, number = part_and_number
        part_rng = jax.random.fold_in(rng, number)
        more, batch_stats, sums = part_gradients(batch_stats, part, part_rng, count)
        return (jax.tree.map(jnp.add, gradients, more), batch_stats), sums

    start = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats)
    parts = (jax.tree.map(split, examples), jnp.arange(accumulate_steps))
    (gradients, batch_stats), sums = jax.lax.scan(add_part, start, parts)
    # In their own type: counts stay whole numbers.
    sums = jax.tree.map(lambda rows: jnp.sum(rows, axis=0, dtype=rows.dtype), sums)
    return gradients, batch_stats, sums


def _part_gradients(state, batch_stats, part, rng, count, *, model, loss, frozen, distillation):
    """Returns what `gradients_of` does, for a part of the `count` examples."""
    taught = None
    if distillation is not None:
        taught = distillation.teach(state.teacher, part["images"])
    # A frozen array enters as a constant, so that nothing is differentiated on its account.
    if frozen is None:
        frozen = jax.tree.map(lambda _: False, state.params)

    def objective(trained):
        params = _held(frozen, state.params, trained)
        logits, changes = model.apply(
            {"params": params, "batch_stats": batch_stats},
            part["images"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng},
        )
        losses = loss(logits, part["targets"])
        if distillation is not None:
            losses = distillation.mix(losses, logits, taught)
        mean = jnp.sum(jnp.where(part["mask"], losses, 0)) / count
        scaled = mean if state.loss_scale is None else mean * state.loss_scale.scale
        sums = example_sums(logits, part["targets"], losses, part["mask"])
        return scaled, (changes.get("batch_stats", {}), sums)

    gradients, (new_batch_stats, sums) = jax.grad(objective, has_aux=True)(state.params)
    return gradients, new_batch_stats, sums


def _held(frozen, old, new):
    """Returns `new`, with the arrays of `old` that are frozen."""
    return jax.tree.map(lambda holds, before, after: before if holds else after, frozen, old, new)


def all_finite(tree: Any) -> jax.Array:
    """Returns whether every number of a tree of arrays is finite.

    Matrices are added up but for their last axis, and what is left is looked at all at once: a GPU
    needs a kernel of its own for the end of each sum.
    """
    leaves = [jnp.abs(leaf) for leaf in jax.tree.leaves(tree)]
    columns = [jnp.sum(leaf, tuple(range(leaf.ndim - 1))) for leaf in leaves if leaf.ndim > 1]
    total = sum(jnp.sum(leaf) for leaf in leaves if leaf.ndim < 2)
    return jnp.isfinite(total) & jnp.all(jnp.isfinite(jnp.concatenate(columns)))


def skip_overflow(old: TrainState, new: TrainState, is_finite: jax.Array) -> TrainState:
    """Returns `new`, or `old` where the gradients overflowed, with the loss scale moved.

    A skipped step counts for the learning rate all the same: else it would fall later than the
    schedule, and the log, say.
    """
    assert old.loss_scale is not None
    kept = jax.tree.map(lambda after, before: jnp.where(is_finite, after, before), new, old)
    opt_state = schedule_at(kept.opt_state, old.step + 1)
    return kept.replace(opt_state=opt_state, loss_scale=old.loss_scale.after(is_finite))


def forward(
    variables: Mapping[str, Any],
    batch: Batch,
    *,
    model: nn.Module,
    normalise: Callable[[jax.Array], jax.Array],
) -> "Float[jax.Array, 'n k']":
    """Returns the logits [N, K] of a batch's "image", uint8 [N, H, W, C], in evaluation mode."""
    # Flax states the type of all that `apply` may return, also with `mutable`.
    logits: Any = model.apply(variables, normalise(batch["image"]), train=False)
    return logits


def eval_step(
    variables: Mapping[str, Any],
    batch: Batch,
    *,
    model: nn.Module,
    normalise: Callable[[jax.Array], jax.Array],
    loss: Loss,
) -> EvalMetrics:
    """Scores one batch.

    Args:
      variables: {"params", "batch_stats"}.
      batch: "image" uint8 [N, H, W, C], "label" and "mask" [N].
      model, normalise: as `forward` takes them.
      loss: (logits, targets) -> [N], without label smoothing.

    Returns:
      `EvalMetrics`: the sums over the rows that the mask does not leave out.
    """
    logits = forward(variables, batch, model=model, normalise=normalise)
    return EvalMetrics(_sums(logits, batch, loss))


def score_step(
    variables: Mapping[str, Any],
    batch: Batch,
    *,
    model: nn.Module,
    normalise: Callable[[jax.Array], jax.Array],
    loss: Loss,
    mirror: bool = False,
    members: np.ndarray | None = None,
) -> Scores:
    """Scores one batch as `eval_step` does, and tells the answers too.

    Args:
      variables, batch, model, normalise, loss: as for `eval_step`.
      mirror: whether the logits are the mean of those of an image and of its mirror image.
      members: int [L, M], of each class of the labels the network's classes that it consists of,
        -1 for none: its probability is the sum of theirs, and all other classes are left out. None:
        the labels are of the network's own classes.
    """
    logits = forward(variables, batch, model=model, normalise=normalise)
    if mirror:
        mirrored = {"image": batch["image"][:, :, ::-1]}
        logits = (logits + forward(variables, mirrored, model=model, normalise=normalise)) / 2
    if members is not None:
        logits = jax.nn.logsumexp(jnp.where(members < 0, -jnp.inf, logits[:, members]), axis=-1)
    is_none = jnp.isnan(logits).any(-1)
    best = jax.nn.softmax(logits).max(-1)
    return Scores(
        _sums(logits, batch, loss),
        label=batch["label"],
        mask=batch["mask"],
        prediction=jnp.where(is_none, -1, jnp.argmax(logits, axis=-1)),
        confidence=jnp.where(is_none, 0, best),
        index=batch["index"],
    )


def _sums(logits: jax.Array, batch: Batch, loss: Loss) -> dict[str, jax.Array]:
    targets = jax.nn.one_hot(batch["label"], logits.shape[-1], dtype=logits.dtype)
    return example_sums(logits, targets, loss(logits, targets), batch["mask"])
