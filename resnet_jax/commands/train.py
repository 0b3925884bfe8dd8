"""`--mode=train`: say what a recipe is, train it, or go on with the run that is there."""

import contextlib
import dataclasses
import time
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import data, introduction, run
from resnet_jax.commands import Arguments, Verb
from resnet_jax.distributed.mesh import describe_devices, is_lead, shard_batch
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.sweep import sweep
from resnet_jax.training import memory
from resnet_jax.training.checkpointing.checkpoint_io import Notes
from resnet_jax.training.checkpointing.checkpoints import Checkpoints
from resnet_jax.training.loop import EvaluatingSide, Loop, TrainingSide
from resnet_jax.training.progress import Progress
from resnet_jax.training.reporting import trace
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.reporting.goodput import Goodput
from resnet_jax.training.reporting.logbook import Logbook
from resnet_jax.training.reporting.outlook import Outlook
from resnet_jax.training.reporting.reporter import Reporter
from resnet_jax.training.state import TrainState


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "where the run is kept; default: runs/<config name>", flag_values=values
    )
    flags.DEFINE_multi_string(
        "sweep",
        [],
        "field=value,value: one run for each value; given again, for each combination",
        flag_values=values,
    )
    flags.DEFINE_string(
        "profile",
        None,
        "start:stop, steps to record a trace of in the workdir's profile/",
        flag_values=values,
    )
    flags.DEFINE_list(
        "accept_recipe_change",
        [],
        "fields in which the recipe may differ from that of the run, for example schedule.base_lr",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "accept_data_change",
        False,
        "go on though the images have changed since the run began",
        flag_values=values,
    )


@dataclasses.dataclass(frozen=True)
class Accepted:
    """What a run may go on with although it began otherwise.

    Attributes:
      fields: dotted names of fields of the recipe.
      data: whether the images may be others.
    """

    fields: tuple[str, ...] = ()
    data: bool = False


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled steps.

    Attributes:
      train_steps: each with the number of the first step it does not take.
      eval_step: scores a batch.
      shapes: of what a training step takes.
    """

    train_steps: list[tuple[int, Any]]
    eval_step: Any
    shapes: Any

    def step_at(self, number: int) -> Any:
        """Returns the training step that takes the state of `number` steps to the next."""
        return next(step for end, step in self.train_steps if number < end)

    def needed_gib(self) -> float:
        return max(memory.needed_gib(step) for _, step in self.train_steps)


def train(
    config: ConfigDict,
    workdir: str,
    *,
    profile: range = range(0),
    accepted: Accepted = Accepted(),
    signals: Signals | None = None,
) -> None:
    """Trains a recipe in a workdir, or goes on with the run that is there.

    Args:
      config: a validated recipe.
      workdir: where the run is kept.
      profile: steps to record a trace of.
      accepted: what may be otherwise than the run began.
      signals: those that are listened for already, of a run that is one of several.

    Raises:
      UserError: something that the user can fix.
      Interrupted: a signal asked to stop, and the run is saved.
    """
    goodput = Goodput()
    merged, _ = run.merge_with_saved(config, workdir, accepted.fields)
    prepare_runtime(merged.precision, merged.deterministic)
    display = Display(silent=not is_lead())
    display.row("devices", describe_devices())
    entered = contextlib.nullcontext(signals) if signals else Signals(silent=not is_lead())
    with entered as signals, run.hold(workdir, signals, display.say) as check_owner:
        signals.nothing_to_lose = True
        # Another run may have been waited for, and have written its recipe by now.
        config, changes = run.merge_with_saved(config, workdir, accepted.fields)
        experiment = Experiment.for_training(config, display.warn)
        checkpoints = run.open_checkpoints(
            workdir, experiment.config, say=display.say, check_owner=check_owner
        )
        notes = _newest_notes(checkpoints)
        if notes and notes.scores and notes.step == experiment.plan.total_steps:
            best = _say_best(checkpoints)
            display.say(f"{workdir} is finished after {notes.step} steps; nothing to do; {best}")
            checkpoints.close()
            return
        for row in introduction.rows(experiment, workdir):
            display.row(*row)
        changes += _check_data(workdir, experiment, notes, accepted)
        state = _begin(workdir, experiment, checkpoints, notes, changes, display)
        with goodput.spent("compiling"):
            programs = _compile(experiment, state, signals, display, notes.step if notes else 0)
        reporter = _make_reporter(experiment, workdir, notes, display, goodput, profile)
        loop = _make_loop(experiment, programs, checkpoints, reporter, signals)
        try:
            with memory.explaining(lambda: _out_of_memory(experiment, programs.shapes)):
                loop.run(state, Progress.from_notes(notes) if notes else Progress())
            display.say(f"{_say_best(checkpoints)}; the run is in {workdir}")
        finally:
            display.stop()
            for opened in (checkpoints, reporter, experiment.train_loader, experiment.eval_loader):
                opened.close()
            display.say(goodput.line())


def _newest_notes(checkpoints: Checkpoints) -> Notes | None:
    step = checkpoints.newest_intact()
    run.check_same_checkpoint(checkpoints, step)
    return None if step is None else checkpoints.notes(step)


def _check_data(
    workdir: str, experiment: Experiment, notes: Notes | None, accepted: Accepted
) -> list[str]:
    if notes is None:
        return []
    sources = experiment.train_loader.source, experiment.eval_loader.source
    return run.check_data(workdir, *sources, accept_change=accepted.data)


def _begin(
    workdir: str,
    experiment: Experiment,
    checkpoints: Checkpoints,
    notes: Notes | None,
    changes: list[str],
    display: Display,
) -> TrainState:
    """Says and keeps what the run is; returns its state: the checkpoint's, else a fresh one."""
    for line in [*changes, *introduction.warnings(experiment)]:
        display.say(line)
    if notes:
        epoch = experiment.plan.epoch(notes.step)
        display.say(f"going on from step {notes.step} (epoch {epoch:g})")
    if is_lead():
        sources = experiment.train_loader.source, experiment.eval_loader.source
        run.describe(workdir, experiment.config, *sources, changes=changes, say=display.say)
    state = experiment.create_state(for_checkpoint=notes is not None)
    for line in experiment.notes:
        display.say(line)
    return state.replace(**checkpoints.restore(notes.step, state.saved())) if notes else state


def _compile(
    experiment: Experiment,
    state: TrainState,
    signals: Signals,
    display: Display,
    first_step: int,
) -> Programs:
    """Compiles the steps to come, so that one that does not fit is told before any is taken."""
    train_batch, eval_batch = (
        shard_batch(experiment.mesh, loader[0])
        for loader in (experiment.train_loader, experiment.eval_loader)
    )
    shapes = memory.shapes_of((state, train_batch))
    began = time.monotonic()

    def compile_train_steps() -> list[tuple[int, Any]]:
        to_come = [phase for phase in experiment.phases if phase[0] > first_step]
        return [(end, step.lower(*shapes).compile()) for end, step in to_come]

    def compile_eval_step() -> Any:
        return experiment.eval_step.lower(state.eval_variables, eval_batch).compile()

    with (
        display.waiting("compiling"),
        memory.explaining(lambda: _out_of_memory(experiment, shapes)),
    ):
        train_steps = signals.patiently(compile_train_steps)
    limit = memory.device_gib()
    if limit is not None and any(memory.needed_gib(step) > limit for _, step in train_steps):
        raise _out_of_memory(experiment, shapes)
    images = experiment.eval_loader.batch_size
    with (
        display.waiting("compiling the evaluation"),
        memory.explaining(
            lambda: memory.evaluation_out_of_memory("config.eval_batch_size", images)
        ),
    ):
        eval_step = signals.patiently(compile_eval_step)
    programs = Programs(train_steps, eval_step, shapes)
    display.row(
        "compiled",
        f"in {time.monotonic() - began:.1f} s; a step takes {programs.needed_gib():.2f} GiB a "
        "device",
    )
    return programs


def _out_of_memory(experiment: Experiment, shapes: Any) -> UserError:
    config = experiment.config
    return memory.out_of_memory(
        config.batch_size,
        config.batch_size // experiment.mesh.size,
        config.accumulate_steps,
        lambda parts: experiment.make_train_step(parts).lower(*shapes).compile(),
    )


def _make_loop(
    experiment: Experiment,
    programs: Programs,
    checkpoints: Checkpoints,
    reporter: Reporter,
    signals: Signals,
) -> Loop:
    train_loader, eval_loader = experiment.train_loader, experiment.eval_loader
    return Loop(
        experiment.plan,
        TrainingSide(
            programs.step_at, lambda start, stop: experiment.batches(train_loader, start, stop)
        ),
        EvaluatingSide(
            programs.eval_step,
            lambda: experiment.batches(eval_loader, 0, len(eval_loader)),
            eval_loader.source.split,
        ),
        checkpoints,
        reporter,
        Requests(signals, experiment.mesh, experiment.config.checkpoint.every_minutes),
    )


def _make_reporter(
    experiment: Experiment,
    workdir: str,
    notes: Notes | None,
    display: Display,
    goodput: Goodput,
    profile: range,
) -> Reporter:
    logbook = Logbook(
        workdir,
        step=notes.step if notes else 0,
        scored=bool(notes and notes.scores),
        silent=not is_lead(),
        say=display.say,
    )
    source = experiment.train_loader.source
    return Reporter(
        experiment.plan,
        display,
        logbook,
        goodput,
        trace.Trace(workdir, profile, silent=not is_lead()),
        lambda batches, images, seconds: data.diagnosis(batches, source, images, seconds),
        Outlook(experiment.plan.steps_per_epoch, introduction.advice(experiment)),
    )


def _say_best(checkpoints: Checkpoints) -> str:
    best = checkpoints.notes(run.pick_step(checkpoints, "best"))
    top1, top5, loss = (best.scores[name] for name in ("top1", "top5", "loss"))
    return f"best: top1 {top1:.4f} top5 {top5:.4f} loss {loss:.4f} at step {best.step}"


def main(arguments: Arguments) -> None:
    config = arguments.recipe()
    if not arguments.sweep:
        accepted = Accepted(tuple(arguments.accept_recipe_change), arguments.accept_data_change)
        for field in accepted.fields:
            config_lib.field_of(field)
        profile = trace.parse(arguments.profile) if arguments.profile else range(0)
        train(config, arguments.workdir_of_recipe(), profile=profile, accepted=accepted)
        return
    for flag in ("profile", "accept_recipe_change", "accept_data_change"):
        if getattr(arguments, flag):
            raise UserError(f"--{flag} is for one run: leave it out, or leave out --sweep")
    # A directory of its own: a run's holds that run alone.
    workdir = arguments.workdir or f"{arguments.workdir_of_recipe()}_sweep"
    sweep(config, arguments.sweep, workdir, train)


VERB = Verb("trains a recipe, or goes on with its run", main, define_flags, takes_recipe=True)
