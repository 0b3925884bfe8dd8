"""The same recipe for several values of a field, one run after another, and a table at the end."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as recipe
from resnet_jax import run
from resnet_jax.distributed.mesh import is_lead
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.errors import UserError
from resnet_jax.training.reporting.display import Display

Assignment = tuple[tuple[str, Any], ...]


def sweep(
    config: ConfigDict, axes: Sequence[str], workdir: str, train: Callable[[ConfigDict, str], None]
) -> None:
    """Trains every combination in a directory of its own, skipping finished runs.

    Args:
      config: the recipe that they share.
      axes: one "field=value,value" a field, for example "seed=0,1,2".
      workdir: holds a directory for each run, named after its values, and `sweep.md`, the table.
      train: trains a recipe in a workdir, or goes on with the run that is there.

    Raises:
      UserError: an axis cannot be read, or one of the recipes is not valid; no run has started
        then. `deterministic` is no axis: XLA reads its flags once a process.
    """
    prepare_runtime(config.precision, config.deterministic)
    display = Display(silent=not is_lead())
    assignments = [tuple(combination) for combination in itertools.product(*map(parse_axis, axes))]
    configs = [assigned(config, assignment) for assignment in assignments]
    if any(variant.deterministic != config.deterministic for variant in configs):
        raise UserError(
            "--sweep=deterministic: it holds for a whole process; run the command once with each"
            " value"
        )
    for number, (assignment, variant) in enumerate(zip(assignments, configs, strict=True), 1):
        display.say(f"run {number}/{len(configs)}: {_name(assignment)}")
        train(variant, str(epath.Path(workdir) / _name(assignment)))
    lines = table(
        {
            assignment: final_scores(epath.Path(workdir) / _name(assignment))
            for assignment in assignments
        }
    )
    if is_lead():
        (epath.Path(workdir) / "sweep.md").write_text("\n".join(lines) + "\n")
    for line in lines:
        display.say(line)


def parse_axis(axis: str) -> list[tuple[str, Any]]:
    """Reads "field=value,value" into (field, value) pairs, each value of the field's type.

    Raises:
      UserError: there is no such field, or a value is not of its type.
    """
    dotted, _, values = axis.partition("=")
    dotted = dotted.removeprefix("config.")
    if not values:
        raise UserError(
            f"--sweep={axis}: write it as field=value,value, for example --sweep=seed=0,1,2"
        )
    kind = recipe.field_of(dotted).kind
    if kind not in (bool, int, float, str):
        raise UserError(
            f"--sweep={axis}: config.{dotted} holds several numbers; sweep over a field that"
            " holds one"
        )
    readers = {bool: {"True": True, "False": False}.__getitem__}
    try:
        return [(dotted, readers.get(kind, kind)(value)) for value in values.split(",")]
    except (ValueError, KeyError) as error:
        raise UserError(f"--sweep={axis}: config.{dotted} takes {kind.__name__} values") from error


def assigned(config: ConfigDict, assignment: Assignment) -> ConfigDict:
    """Returns a validated copy of a recipe with some fields set."""
    variant = recipe.from_json(recipe.to_json(config))
    for dotted, value in assignment:
        recipe.set_field(variant, dotted, value)
    recipe.validate(variant)
    return variant


def final_scores(workdir: epath.Path) -> dict[str, float]:
    """Returns a finished run's scores after its last step: not its best, which would be chosen on
    what it reports.
    """
    checkpoints = run.open_checkpoints(workdir, run.read_config(workdir))
    scores = dict(checkpoints.notes(checkpoints.steps()[-1]).scores)
    checkpoints.close()
    return scores


def table(scores: dict[Assignment, dict[str, float]]) -> list[str]:
    """Returns a Markdown table: a row a run, then mean and sample standard deviation over the seeds
    of each kind.
    """
    rows = [
        (_name(assignment), f"{s['top1']:.4f}", f"{s['loss']:.4f}")
        for assignment, s in scores.items()
    ]
    groups: dict[Assignment, list[dict[str, float]]] = {}
    for assignment, found in scores.items():
        kind = tuple(pair for pair in assignment if pair[0] != "seed")
        groups.setdefault(kind, []).append(found)
    for kind, members in groups.items():
        if len(members) > 1:
            summaries = [
                _mean_and_deviation([member[name] for member in members])
                for name in ("top1", "loss")
            ]
            rows.append((f"**{_name(kind) if kind else 'all'}**, {len(members)} runs", *summaries))
    return ["| run | top1 | loss |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


def _mean_and_deviation(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def _name(assignment: Assignment) -> str:
    return ",".join(f"{dotted}={value}" for dotted, value in assignment)
