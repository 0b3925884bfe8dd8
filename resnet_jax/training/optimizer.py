"""Optimizers: optax chains with weight decay where it belongs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from resnet_jax.fields import Field, Needs
from resnet_jax.training.param_groups import ParamGroups, path_of
from resnet_jax.training.schedule import Schedule

_VELOCITY = (Needs("name", ("sgd", "lars")),)
_MOMENTS = (Needs("name", ("adam", "adamw", "lamb")),)
FIELDS = {
    "name": Field("sgd", "the update rule", choices=("sgd", "adam", "adamw", "lars", "lamb")),
    "momentum": Field(
        0.9, "sgd, lars: share of the old velocity kept", at_least=0, below=1, needs=_VELOCITY
    ),
    "nesterov": Field(False, "sgd, lars: look-ahead momentum", needs=_VELOCITY),
    "clip_norm": Field(
        None, "largest norm of all gradients together; longer ones are scaled to it", float, above=0
    ),
    "weight_decay": Field(1e-4, "weight decay", at_least=0),
    "decoupled": Field(
        False,
        "sgd: decay beside the gradient (SGDW) and not through it (L2)",
        needs=(Needs("name", ("sgd",)),),
    ),
    "decay_norm_and_bias": Field(False, "decay the normalisation's scales and all biases as well"),
    "b1": Field(
        0.9, "adam, adamw, lamb: decay of the first moment", at_least=0, below=1, needs=_MOMENTS
    ),
    "b2": Field(
        0.999, "adam, adamw, lamb: decay of the second moment", at_least=0, below=1, needs=_MOMENTS
    ),
    "eps": Field(1e-8, "adam, adamw, lamb: added to the denominator", above=0, needs=_MOMENTS),
    "trust_coefficient": Field(
        0.001,
        "lars: layer-wise rate over the ratio of norms",
        above=0,
        needs=(Needs("name", ("lars",)),),
    ),
    "freeze": Field(
        (), "patterns of parameters that do not train, as 'layer1_*', 'all but fc'", tuple[str, ...]
    ),
    "freeze_epochs": Field(
        None,
        "epochs after which they do train; None: they never do",
        float,
        above=0,
        needs=(Needs("freeze"),),
    ),
    "rates": Field(
        (), "PATTERN=FACTOR of the learning rate; the first that matches counts", tuple[str, ...]
    ),
    "layer_decay": Field(
        None, "factor of the rate for each block further from the classifier", float, above=0
    ),
}
_FROZEN, _TRAINED = "frozen", "trained"


def is_weight(params: Any) -> Any:
    """Returns a tree of bools like `params`: True for convolution and dense kernels.

    False for BatchNorm's scales and all biases, the usual exclusions from weight decay (Goyal et
    al. 2017, section 5.1) and from layer-wise rates (You et al. 2017).
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(
    optimizer: Mapping[str, Any],
    rate: Schedule,
    groups: ParamGroups | None = None,
    *,
    is_frozen: bool = False,
) -> optax.GradientTransformation:
    """Builds the optimizer.

    - "sgd": velocity = momentum * velocity + gradient, parameters -= rate * velocity, as PyTorch
      and He et al. 2015 do; L2 decay joins the gradient, decoupled decay the update (Loshchilov and
      Hutter 2019).
    - "adam" (L2 decay), "adamw" (decoupled): Kingma and Ba 2015, Loshchilov and Hutter 2019.
    - "lars": You et al. 2017; "lamb": You et al. 2020. Kernels alone get a layer-wise rate.

    Where `clip_norm` is set, gradients are first scaled by min(1, clip_norm / norm), the norm being
    that of all of them as one vector (Pascanu et al. 2013, section 3.2).

    Args:
      optimizer: the fields of `FIELDS`.
      rate: learning rate as a function of the step number.
      groups: where some parameters are frozen or have a rate of their own; None for none.
      is_frozen: whether this is for steps at which the frozen ones are. The state is the same for
        all steps; those of the frozen group count for its learning rate and nothing else.

    Returns:
      The optax transformation of gradients into updates.
    """
    update = _make_chain(optimizer, rate, groups)
    if groups is not None and groups.freeze:
        if optimizer["freeze_epochs"] is None:
            frozen = optax.set_to_zero()
        else:
            frozen = _holding_still(update) if is_frozen else update

        def labels(params: Any) -> Any:
            return jax.tree.map(lambda holds: _FROZEN if holds else _TRAINED, groups.frozen(params))

        update = optax.partition({_TRAINED: update, _FROZEN: frozen}, labels)
    if optimizer["clip_norm"] is None:
        return update
    # Outside of the groups, each of which would have a norm of its own.
    return optax.chain(optax.clip_by_global_norm(optimizer["clip_norm"]), update)


def _make_chain(
    optimizer: Mapping[str, Any], rate: Schedule, groups: ParamGroups | None
) -> optax.GradientTransformation:
    mask = None if optimizer["decay_norm_and_bias"] else is_weight
    decay = optax.add_decayed_weights(optimizer["weight_decay"], mask)
    adam = optax.scale_by_adam(optimizer["b1"], optimizer["b2"], optimizer["eps"])
    descend = optax.scale_by_learning_rate(rate)
    match optimizer["name"]:
        case "sgd":
            velocity = optax.trace(optimizer["momentum"], optimizer["nesterov"])
            parts = (
                (velocity, decay, descend) if optimizer["decoupled"] else (decay, velocity, descend)
            )
        case "adam":
            parts = (decay, adam, descend)
        case "adamw":
            parts = (adam, decay, descend)
        case "lars":
            layerwise = optax.scale_by_trust_ratio(trust_coefficient=optimizer["trust_coefficient"])
            velocity = optax.trace(optimizer["momentum"], optimizer["nesterov"])
            parts = (decay, optax.masked(layerwise, is_weight), descend, velocity)
        case "lamb":
            parts = (adam, decay, optax.masked(optax.scale_by_trust_ratio(), is_weight), descend)
    if groups is not None and groups.has_rates:
        parts = (*parts, _scale_by_groups(groups))
    return optax.chain(*parts)


def _scale_by_groups(groups: ParamGroups) -> optax.GradientTransformation:
    def scale(updates: Any, params: Any) -> Any:
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, update: update * groups.rate(path_of(path)), updates
        )

    return optax.stateless(scale)


def _holding_still(chain: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns a chain's state and no update, with only the learning rate going on."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        step = optax.tree.get(state, "count", filtering=_is_schedule)
        return jax.tree.map(jnp.zeros_like, updates), schedule_at(state, step + 1)

    return optax.GradientTransformation(chain.init, update)


def schedule_at(opt_state: Any, step: jax.Array) -> Any:
    """Returns an optimizer's state with its learning rate that of `step`, all else as it was.

    For steps that are skipped, as in float16 after an overflow: they count for the schedule, not
    for Adam's moments.
    """
    return optax.tree.set(opt_state, _is_schedule, count=step)


def _is_schedule(path: Any, _: Any) -> bool:
    return path[-1].tuple_name == "ScaleByScheduleState"
