"""The same recipe for several values of a field, one run after another, and a table at the end."""

import itertools
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import run
from resnet_jax.distributed.consensus import most
from resnet_jax.distributed.mesh import is_lead
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.distributed.signals import Interrupted, Signals
from resnet_jax.errors import UserError
from resnet_jax.files import write_atomically
from resnet_jax.run_files import CONFIG, STARTS
from resnet_jax.training.loop import NotFinite
from resnet_jax.training.reporting.curves import mean_and_deviation
from resnet_jax.training.reporting.display import Display

Assignment = tuple[tuple[str, Any], ...]


def sweep(
    config: ConfigDict, axes: Sequence[str], workdir: str, train: Callable[..., None]
) -> None:
    """Trains every combination in a directory of its own, skipping finished runs.

    A run that fails is marked in the table, with the reason, and the others go on.

    Args:
      config: the recipe that they share.
      axes: one "field=value,value" a field, for example "seed=0,1,2".
      workdir: holds a directory for each run, named after its values, and `sweep.md`, the table.
      train: (recipe, workdir, signals=) trains a recipe, or goes on with the run that is there.

    Raises:
      UserError: an axis cannot be read, one of the recipes is not valid, or the directory is that
        of a run: no run has started then. `deterministic` is no axis: XLA reads its flags once a
        process. Or runs have failed.
      Interrupted: a signal asked to stop.
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
    _check_effects(assignments, configs)
    _check_is_no_run(epath.Path(workdir))
    results: dict[Assignment, dict[str, float] | str] = {}
    with (
        Signals(silent=not is_lead()) as signals,
        run.hold(workdir, signals, display.say),
    ):
        for number, (assignment, variant) in enumerate(zip(assignments, configs, strict=True), 1):
            # A signal after the last step of the run before has let that run end.
            if stop := most(signals.stop):
                raise Interrupted(stop)
            display.say(f"run {number}/{len(configs)}: {_name(assignment)}")
            results[assignment] = _result(
                variant, _directory(epath.Path(workdir), assignment), train, signals
            )
            if isinstance(results[assignment], str):
                display.say(f"run {number}/{len(configs)} failed: {results[assignment]}")
            lines = table(results)
            if is_lead():
                write_atomically(epath.Path(workdir) / "sweep.md", "\n".join(lines) + "\n")
    for line in lines:
        display.say(line)
    failed = [_name(assignment) for assignment in results if isinstance(results[assignment], str)]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(results)} runs failed ({'; '.join(failed)}): the table says why"
        )


def _check_effects(assignments: Sequence[Assignment], configs: Sequence[ConfigDict]) -> None:
    """Raises `UserError` for an axis that has no effect in any of the runs."""
    idle = set.intersection(*(set(config_lib.without_effect(variant)) for variant in configs))
    for name, _ in assignments[0]:
        if name in idle:
            why = config_lib.without_effect(configs[0])[name]
            raise UserError(f"--sweep={name} has no effect: {why}")


def _check_is_no_run(workdir: epath.Path) -> None:
    for directory in (workdir, *workdir.parents):
        # Other programs have a config.json too.
        if (directory / CONFIG).exists() and (directory / STARTS).exists():
            raise UserError(
                f"--workdir={workdir}: {directory} is that of a run; give the sweep a directory of "
                f"its own, for example --workdir={directory}_sweep"
            )


def _result(
    config: ConfigDict, workdir: epath.Path, train: Callable[..., None], signals: Signals
) -> dict[str, float] | str:
    """Trains one run; returns its scores, or why it failed."""
    try:
        train(config, str(workdir), signals=signals)
        return final_scores(workdir)
    except Interrupted:
        raise
    except Exception as error:
        # Other processes may not have failed: only what all of them have seen is no reason to stop.
        if jax.process_count() > 1 and not isinstance(error, NotFinite):
            raise
        if not isinstance(error, UserError):
            traceback.print_exception(error)
        return " ".join(str(error).split()) or type(error).__name__


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
    field = config_lib.field_of(dotted)
    kind = field.kind
    if kind not in (bool, int, float, str):
        raise UserError(
            f"--sweep={axis}: config.{dotted} holds several numbers; sweep over a field that"
            " holds one"
        )
    readers: dict[type, Callable[[str], Any]] = {bool: {"True": True, "False": False}.__getitem__}

    def read(value: str) -> Any:
        if value == "None" and field.fault(None) is None:
            return None
        return readers.get(kind, kind)(value)

    try:
        return [(dotted, read(value)) for value in values.split(",")]
    except (ValueError, KeyError) as error:
        raise UserError(f"--sweep={axis}: config.{dotted} takes {kind.__name__} values") from error


def assigned(config: ConfigDict, assignment: Assignment) -> ConfigDict:
    """Returns a validated copy of a recipe with some fields set."""
    variant = config_lib.copy_of(config)
    for dotted, value in assignment:
        config_lib.set_field(variant, dotted, value)
    config_lib.validate(variant)
    return variant


def final_scores(workdir: epath.Path) -> dict[str, float]:
    """Returns a finished run's scores after its last step: not its best, which would be chosen on
    what it reports.
    """
    checkpoints = run.open_checkpoints(workdir, run.read_config(workdir))
    scores = dict(checkpoints.notes(checkpoints.steps()[-1]).scores)
    checkpoints.close()
    return scores


def table(results: Mapping[Assignment, Mapping[str, float] | str]) -> list[str]:
    """Returns a Markdown table of runs, and of their kinds: mean and sample deviation over seeds.

    Args:
      results: of each run its scores, or why it failed.
    """
    rows: list[tuple[str, ...]] = []
    kinds: dict[Assignment, list[Mapping[str, float]]] = {}
    for assignment, result in results.items():
        if isinstance(result, str):
            rows.append((_name(assignment), "failed", result.replace("|", "\\|")))
            continue
        rows.append((_name(assignment), f"{result['top1']:.4f}", f"{result['loss']:.4f}"))
        kind = tuple(pair for pair in assignment if pair[0] != "seed")
        kinds.setdefault(kind, []).append(result)
    for kind, members in kinds.items():
        if len(members) > 1:
            summaries = [
                mean_and_deviation([member[name] for member in members])
                for name in ("top1", "loss")
            ]
            rows.append((f"**{_name(kind) if kind else 'all'}**, {len(members)} runs", *summaries))
    return ["| run | top1 | loss |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


def _directory(workdir: epath.Path, assignment: Assignment) -> epath.Path:
    # One level, where --mode=report looks: a value may be a path.
    return workdir / _name(assignment).replace("/", "%2F")


def _name(assignment: Assignment) -> str:
    return ",".join(f"{dotted}={value}" for dotted, value in assignment)
