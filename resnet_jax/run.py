"""A run on disk: its recipe, its classes, its checkpoints."""

import json
import os
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as recipe
from resnet_jax import data
from resnet_jax.description import Description
from resnet_jax.distributed.mesh import replicated
from resnet_jax.environment import describe_start
from resnet_jax.errors import UserError
from resnet_jax.training.checkpointing.checkpoints import Checkpoints

BUCKETS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
"""Scheme of an address -> the package that reads and writes there for etils.epath."""

_ENVIRONMENT = "environment.json"
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


def check_backend(workdir: epath.PathLike) -> None:
    """Checks that this machine can reach the place of a run.

    Raises:
      UserError: it is in a bucket whose package is not installed.
    """
    scheme, found, _ = str(workdir).partition("://")
    try:
        epath.Path(workdir).exists()
    except ImportError as error:
        package = BUCKETS.get(scheme) if found else None
        remedy = f"pip install {package}" if package else str(error)
        raise UserError(
            f"--workdir={workdir}: the package for {scheme}:// is missing: {remedy}"
        ) from error


def read_config(workdir: epath.PathLike) -> ConfigDict:
    """Reads the recipe that a run keeps.

    Raises:
      UserError: there is no run in `workdir`, or its config.json is damaged.
    """
    check_backend(workdir)
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(
            f"--workdir={workdir} holds no run (no config.json): train one, or name another"
            " directory"
        )
    try:
        return recipe.from_json(path.read_text())
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): restore it from a copy, or use another --workdir"
        ) from error


def merge_with_saved(config: ConfigDict, workdir: epath.PathLike) -> tuple[ConfigDict, list[str]]:
    """Fits a recipe to the run that its workdir already has.

    Args:
      config: the recipe of the command.
      workdir: may hold a run with checkpoints, or nothing.

    Returns:
      The recipe, its open fields filled from the run, and a line for each change that is worth
      saying.

    Raises:
      UserError: the run was made by another recipe; the message lists the fields.
    """
    check_backend(workdir)
    directory = epath.Path(workdir) / "checkpoints"
    if not directory.exists() or not any(path.name.isdigit() for path in directory.iterdir()):
        return config, []
    old = read_config(workdir)
    clauses = recipe.differences(old, config)
    if clauses:
        raise UserError(
            f"--workdir={workdir} has a run of another recipe ({'; '.join(clauses)}): "
            "use another --workdir, or the run's own values"
        )
    merged = recipe.from_json(recipe.to_json(old))
    for dotted, value in recipe.flatten(config):
        if not recipe.is_open(dotted, value):
            recipe.set_field(merged, dotted, value)
    lines = []
    if config.num_epochs != old.num_epochs:
        lines.append(
            f"num_epochs {old.num_epochs:g} -> {config.num_epochs:g}: the schedule is that of the"
            " new length from here"
        )
    if config.accumulate_steps != old.accumulate_steps:
        lines.append(
            f"accumulate_steps {old.accumulate_steps} -> {config.accumulate_steps}: with BatchNorm,"
            " its statistics are those of the new parts from here"
        )
    return merged, lines


def check_data(workdir: epath.PathLike, source: data.Source) -> None:
    """Checks that the training images are those that the run in a workdir began with, as far as it
    has noted.

    Raises:
      UserError: they have other classes, or another number.
    """
    workdir = epath.Path(workdir)
    listed = workdir / "classes.txt"
    classes = listed.read_text().splitlines() if listed.exists() else list(source.classes)
    images = (_starts(workdir) or [{}])[-1].get("train_images", len(source))
    if classes != list(source.classes) or images != len(source):
        raise UserError(
            f"--workdir={workdir} was trained on {images} images of {len(classes)} classes"
            f" ({_ends(classes)}), which are not the {len(source)} of {len(source.classes)}"
            f" ({_ends(source.classes)}) of {source.name} {source.split}: give it the data that it"
            " began with, or take another --workdir"
        )


def _starts(workdir: epath.Path) -> list[dict[str, Any]]:
    """Returns what each start of a run has noted, see `environment.describe_start`."""
    path = workdir / _ENVIRONMENT
    return json.loads(path.read_text()) if path.exists() else []


def _ends(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} .. {names[-1]}"


def describe(workdir: epath.PathLike, config: ConfigDict, source: data.Source) -> None:
    """Writes config.json and classes.txt, and an entry of this start into environment.json.

    Args:
      workdir: of the run.
      config: the recipe in force.
      source: the training images.

    Raises:
      UserError: the directory cannot be written to.
    """
    workdir = epath.Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        starts = [*_starts(workdir), describe_start(len(source), source.image_shape)]
        _replace(workdir / _ENVIRONMENT, json.dumps(starts, indent=2) + "\n")
        _replace(workdir / "config.json", recipe.to_json(config))
        _replace(workdir / "classes.txt", "".join(f"{name}\n" for name in source.classes))
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written to ({error.strerror}): name another"
        ) from error


def _replace(path: epath.Path, text: str) -> None:
    """Writes a file whole or not at all, whenever the process is killed."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


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
    if not str(which).isdigit() or int(which) not in steps:
        raise UserError(
            f"--which={which}: must be best, last or one of {', '.join(map(str, steps))}"
        )
    return int(which)


def restore(
    workdir: epath.PathLike, which: str | int = "best", *, mesh: jax.sharding.Mesh | None = None
) -> tuple[nn.Module, dict[str, Any], Description]:
    """Reads a trained network from a run.

    Args:
      workdir: what `--workdir` was.
      which: "best" by the run's metric, "last", or a step.
      mesh: devices to copy the variables to; None leaves them on the default device.

    Returns:
      The Flax module, its variables ("params" and "batch_stats"), and what they are.

    Raises:
      UserError: there is no such run or checkpoint, or it is damaged.
    """
    config = read_config(workdir)
    checkpoints = open_checkpoints(workdir, config)
    step = pick_step(checkpoints, which)
    fault = checkpoints.fault(step)
    if fault is not None:
        others = [str(other) for other in checkpoints.steps() if other != step]
        raise UserError(
            f"checkpoint {step} of {workdir} is damaged ({fault}): try"
            f" --which={'|'.join(others) or '...'}"
        )
    notes = checkpoints.notes(step)
    sharding = (
        jax.sharding.SingleDeviceSharding(jax.devices()[0]) if mesh is None else replicated(mesh)
    )
    variables = checkpoints.restore_variables(step, sharding)
    classes = tuple((epath.Path(workdir) / "classes.txt").read_text().splitlines())
    checkpoints.close()
    return (
        recipe.build_model(config),
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


def _preprocessing(workdir: epath.Path, config: ConfigDict) -> dict[str, Any]:
    """Returns how the run prepares the images that it scores, as `Description` has it."""
    fields = config.data
    noted = (_starts(workdir) or [{}])[-1]
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
