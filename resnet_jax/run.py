"""A run on disk: its recipe, its classes, its checkpoints."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax.description import Description
from resnet_jax.distributed.consensus import differing, lead_says
from resnet_jax.distributed.lock import Lock, read_token
from resnet_jax.distributed.mesh import is_lead, replicated
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.run_files import (
    check_backend,
    check_data,
    data_changes,
    describe,
    note_end,
    read_classes,
    read_config,
    read_starts,
)
from resnet_jax.training.checkpointing.checkpoints import Checkpoints

_LOOK_SECONDS, _MOST_LOOKS = 1, 65

__all__ = [
    "Description",
    "agree_on_step",
    "check_backend",
    "check_data",
    "check_same_checkpoint",
    "check_takes_pictures",
    "data_changes",
    "describe",
    "hold",
    "merge_with_saved",
    "note_end",
    "open_checkpoints",
    "pick_step",
    "read_classes",
    "read_config",
    "restore",
]

# Sources whose images all have one size: for runs that began before their starts noted it.
_OF_ONE_SIZE = ("cifar", "digits", "idx", "synthetic")


def open_checkpoints(workdir: epath.PathLike, config: ConfigDict, **options: Any) -> Checkpoints:
    """Returns the checkpoints of a run; `options` go to `Checkpoints`."""
    return Checkpoints(
        epath.Path(os.path.abspath(workdir) if "://" not in str(workdir) else workdir)
        / "checkpoints",
        keep=config.checkpoint.keep,
        best_metric=config.checkpoint.best_metric,
        **options,
    )


@contextlib.contextmanager
def hold(
    workdir: epath.PathLike, signals: Signals, say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Keeps other runs out of a workdir; yields what checks that it is still this run's.

    Process 0 holds the lock, and all check that they see it: they must share the workdir.

    Args:
      workdir: of the run; made if it is absent.
      signals: of this process: a second start waits for one that is told to stop.
      say: called with a line when the lock must be waited for.

    Raises:
      UserError: another run has the workdir, or a process of this one does not see it.
    """
    if not is_lead():
        _check_same_workdir(workdir, "")
        yield lambda: None
        return
    with Lock(workdir, say=say, is_stopping=lambda: signals.stop != 0) as lock:
        signals.before_exit.append(lock.release)
        try:
            _check_same_workdir(workdir, lock.token)
            yield lock.check
        finally:
            signals.before_exit.remove(lock.release)


def _check_same_workdir(workdir: epath.PathLike, token: str) -> None:
    # A network file system may show a new file to other machines only after a minute.
    for _ in range(_MOST_LOOKS):
        others = differing(token or read_token(workdir))
        if not others:
            return
        time.sleep(_LOOK_SECONDS)
    raise UserError(
        f"--workdir={workdir}: process {', '.join(map(str, others))} does not see there what "
        "process 0 writes: give all processes the same --workdir on a disk that they share"
    )


def merge_with_saved(
    config: ConfigDict, workdir: epath.PathLike, accepted: Sequence[str] = ()
) -> tuple[ConfigDict, list[str]]:
    """Fits a recipe to the run that its workdir already has.

    Args:
      config: the recipe of the command.
      workdir: may hold a run with checkpoints, or nothing.
      accepted: dotted names of fields that may differ from the run's; of these None, too, means
        itself.

    Returns:
      The recipe, its open fields filled from the run, and a line for each change that is worth
      saying.

    Raises:
      UserError: the run was made by another recipe; the message lists the fields.
    """
    check_backend(workdir)
    if not open_checkpoints(workdir, config).steps():
        return config, []
    old = read_config(workdir)
    others = config_lib.differences(old, config, accepted)
    clauses = [clause for name, clause in others if name not in accepted]
    if clauses:
        raise UserError(
            f"--workdir={workdir} has a run of another recipe ({'; '.join(clauses)}): "
            "use another --workdir, the run's own values, or go on with other ones by "
            f"--accept_recipe_change={','.join(name for name, _ in others)}"
        )
    merged = config_lib.copy_of(old)
    for dotted, value in config_lib.flatten(config):
        if dotted in accepted or not config_lib.is_open(dotted, value):
            config_lib.set_field(merged, dotted, value)
    lines = [f"going on with another recipe: {clause}" for _, clause in others]
    if config.num_epochs > old.num_epochs:
        lines.append(
            f"num_epochs {old.num_epochs:g} -> {config.num_epochs:g}: the schedule is that of the"
            " new length from here"
        )
    if config.accumulate_steps != old.accumulate_steps:
        lines.append(
            f"accumulate_steps {old.accumulate_steps} -> {config.accumulate_steps}: with BatchNorm,"
            " its statistics are those of the new parts from here"
        )
    given = config.distill.digest not in (None, old.distill.digest)
    if merged.distill.teacher != old.distill.teacher and not given:
        merged.distill.digest = None  # of the one that the run had until now
    return merged, lines


def pick_step(checkpoints: Checkpoints, which: str | int) -> int:
    """Returns the step that "best", "last" or a number means.

    Raises:
      UserError: the run has no such checkpoint; the message lists those it has.
    """
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{checkpoints.directory} holds no checkpoint yet: train first")
    if which == "last":
        return steps[-1]
    if which == "best":
        best = checkpoints.best_step()
        return steps[-1] if best is None else best
    if str(which) not in map(str, steps):
        raise UserError(
            f"--which={which}: must be best, last or one of {', '.join(map(str, steps))}"
        )
    return int(which)


def agree_on_step(checkpoints: Checkpoints, which: str | int) -> int:
    """Returns the step that process 0 picks, in every process; a barrier.

    Raises:
      UserError: there is none such, or another process does not see the same checkpoint.
    """
    step = lead_says(pick_step(checkpoints, which) if is_lead() else 0)
    check_same_checkpoint(checkpoints, step)
    return step


def check_same_checkpoint(checkpoints: Checkpoints, step: int | None) -> None:
    """Checks that all processes see what process 0 sees, before anything is read; a barrier.

    Raises:
      UserError: one sees another checkpoint of this step, or none.
    """
    seen = "" if step is None else checkpoints.checksums(step)
    if others := differing(seen):
        raise UserError(
            f"{checkpoints.directory}: process {', '.join(map(str, others))} does not see the "
            f"checkpoint of step {step} that process 0 sees: give all processes the same --workdir "
            "on a disk that all of them share, and start them again"
        )


def restore(
    workdir: epath.PathLike, which: str | int = "best", *, mesh: jax.sharding.Mesh | None = None
) -> tuple[ResNet, dict[str, Any], Description]:
    """Reads a trained network from a run.

    Args:
      workdir: what `--workdir` was.
      which: "best" by the run's metric, "last", or a step.
      mesh: devices to copy the variables to; None leaves them on this process's first.

    Returns:
      The Flax module, its variables ("params" and "batch_stats"; those of the moving average where
      the run has one), and what they are.

    Raises:
      UserError: there is no such run or checkpoint, or it is damaged.
    """
    config = read_config(workdir)
    checkpoints = open_checkpoints(workdir, config)
    step = pick_step(checkpoints, which)
    damage = checkpoints.find_damage(step)
    if damage is not None:
        others = "|".join(str(other) for other in checkpoints.steps() if other != step)
        another = f", or take another by --which={others}" if others else ""
        raise UserError(
            f"checkpoint {step} of {workdir} is damaged ({damage}): restore it from a copy{another}"
        )
    notes = checkpoints.notes(step)
    classes = read_classes(workdir)
    local = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = local if mesh is None else replicated(mesh)
    variables = checkpoints.restore_variables(step, sharding)
    checkpoints.close()
    return (
        config_lib.build_model(config),
        variables,
        Description(
            config,
            classes,
            step,
            dict(notes.scores),
            source=str(workdir),
            **_preprocessing(epath.Path(workdir), config),
        ),
    )


def check_takes_pictures(workdir: epath.PathLike) -> None:
    """Checks that pictures of any size can be made what a run's network takes.

    Raises:
      UserError: it was trained on images that are not square, or have not 1 or 3 channels.
    """
    check_backend(workdir)
    shape = (read_starts(epath.Path(workdir)) or [{}])[-1].get("image_shape")
    match shape:
        case [int(height), int(width), int(channels)]:
            if height != width or channels not in (1, 3):
                raise UserError(
                    f"--workdir={workdir}: was trained on images of {height}x{width}x{channels},"
                    " and pictures are made square, of 1 or 3 channels; score it by"
                    " --mode=evaluate, or take it by resnet_jax.restore and prepare them yourself"
                )


def _preprocessing(workdir: epath.Path, config: ConfigDict) -> dict[str, Any]:
    """Returns how the run prepares the images that it scores, as `Description` has it."""
    fields = config.data
    noted = (read_starts(workdir) or [{}])[-1]
    has_own_size = noted.get("image_shape", fields.name in _OF_ONE_SIZE)
    moments = {"mean": tuple(fields.mean), "std": tuple(fields.std)} if fields.mean else {}
    return {
        "image_size": fields.image_size or Description.image_size,
        "eval_size": fields.eval_size or fields.image_size or Description.eval_size,
        "interpolation": fields.interpolation,
        "crop": 1.0 if has_own_size else fields.eval_crop,
        "crop_mode": fields.eval_crop_mode,
        **moments,
    }
