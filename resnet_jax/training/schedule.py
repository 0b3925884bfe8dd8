"""Learning-rate schedules, stated in epochs."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from resnet_jax.errors import UserError
from resnet_jax.fields import Field, Needs

_STEP = (Needs("name", ("step",)),)
FIELDS = {
    "name": Field(
        "step", "how the rate falls", choices=("step", "cosine", "polynomial", "constant")
    ),
    "base_lr": Field(0.1, "the peak rate, for a batch of base_batch_size", above=0),
    "base_batch_size": Field(
        0,
        "base_lr is scaled by batch_size over this; None: it stands as it is; 0: 256 for sgd and"
        " lars, None for others",
        optional=True,
        at_least=0,
    ),
    "boundaries": Field(
        (30.0, 60.0, 80.0),
        "step: epochs at which the rate drops",
        type=tuple[float, ...],
        at_least=0,
        needs=_STEP,
    ),
    "factor": Field(
        0.1, "step: what a drop multiplies the rate by", above=0, at_most=1, needs=_STEP
    ),
    "power": Field(
        2.0, "polynomial: the exponent", above=0, needs=(Needs("name", ("polynomial",)),)
    ),
    "end_factor": Field(
        0.0,
        "cosine, polynomial: share of the peak rate at the end",
        at_least=0,
        at_most=1,
        needs=(Needs("name", ("cosine", "polynomial")),),
    ),
    "warmup_epochs": Field(0.0, "epochs of linear warm-up", at_least=0),
    "warmup_factor": Field(
        0.0,
        "share of the peak rate that the warm-up starts from",
        at_least=0,
        at_most=1,
        needs=(Needs("warmup_epochs"),),
    ),
}

Schedule = Callable[[ArrayLike], jax.Array]


def check(schedule: Mapping[str, Any]) -> None:
    """Checks what the table of fields cannot.

    Raises:
      UserError: the boundaries do not increase.
    """
    boundaries = schedule["boundaries"]
    if any(later <= earlier for earlier, later in itertools.pairwise(boundaries)):
        raise UserError(
            f"config.schedule.boundaries = {tuple(boundaries)}: must increase, for example (30,"
            " 60, 80)"
        )


def warnings(schedule: Mapping[str, Any], num_epochs: float) -> list[str]:
    """Returns a line for everything in the schedule that a run of `num_epochs` never reaches."""
    lines = []
    late = [boundary for boundary in schedule["boundaries"] if boundary >= num_epochs]
    if schedule["name"] == "step" and late:
        lines.append(
            f"schedule.boundaries {late} lie at or past the last epoch ({num_epochs:g}) and have no"
            " effect"
        )
    if schedule["warmup_epochs"] >= num_epochs:
        lines.append(
            f"schedule.warmup_epochs = {schedule['warmup_epochs']:g}: the whole run is warm-up"
        )
    return lines


def peak_rate(schedule: Mapping[str, Any], batch_size: int, optimizer_name: str) -> float:
    """Returns the peak learning rate for a global batch (linear scaling: Goyal et al. 2017, section
    2.1).
    """
    base = base_batch_size(schedule, optimizer_name)
    return schedule["base_lr"] * (batch_size / base if base else 1.0)


def base_batch_size(schedule: Mapping[str, Any], optimizer_name: str) -> int | None:
    """Returns the batch that `base_lr` is for, None where it is for any."""
    base = schedule["base_batch_size"]
    if base == 0:
        return 256 if optimizer_name in ("sgd", "lars") else None
    return base


def make_schedule(
    schedule: Mapping[str, Any], peak: float, steps_per_epoch: int, total_steps: int
) -> Schedule:
    """Returns the learning rate as a function of the number of steps already taken.

    The warm-up rises linearly and reaches the peak with its last step (Goyal et al. 2017, section
    2.2). Boundaries count from the start of training; the cosine (Loshchilov and Hutter 2017,
    without restarts) and the polynomial run from the end of the warm-up and would reach their end
    with the step after the last.

    Args:
      schedule: the fields of `FIELDS`.
      peak: from `peak_rate`.
      steps_per_epoch: steps in one epoch.
      total_steps: steps in the whole run.

    Returns:
      A function of a step number, traceable by JAX.
    """
    warmup_steps = round(schedule["warmup_epochs"] * steps_per_epoch)
    end = schedule["end_factor"]

    def decay(step: jax.Array) -> jax.Array:
        progress = jnp.clip((step - warmup_steps) / max(1, total_steps - warmup_steps), 0, 1)
        match schedule["name"]:
            case "step":
                starts = jnp.array(
                    [round(epoch * steps_per_epoch) for epoch in schedule["boundaries"]], int
                )
                return jnp.asarray(schedule["factor"], float) ** jnp.sum(step >= starts)
            case "cosine":
                return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
            case "polynomial":
                return end + (1 - end) * (1 - progress) ** schedule["power"]
            case _:  # "constant"
                return jnp.ones((), float)

    def rate(step: ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        rise = schedule["warmup_factor"] + (1 - schedule["warmup_factor"]) * (step + 1) / max(
            1, warmup_steps
        )
        return peak * jnp.where(step < warmup_steps, rise, decay(step))

    return rate
