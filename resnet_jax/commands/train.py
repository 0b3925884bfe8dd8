"""`--mode=train`: say what a recipe is, train it, or go on with the run that is there."""

import contextlib
import dataclasses

from absl import flags
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import data, introduction, run, thumbnails
from resnet_jax.commands import Arguments, Verb
from resnet_jax.distributed.mesh import describe_devices, is_lead
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.programs import Programs, compile_programs
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
        if notes and experiment.plan.is_over(notes.step, notes.scores):
            _restore_classes(workdir, experiment, display)
            _say_finished(workdir, checkpoints, notes, display)
            return
        changes += _check_data(workdir, experiment, notes, accepted)
        state = _begin(workdir, experiment, checkpoints, notes, changes, display)
        progress = Progress.from_notes(notes) if notes else Progress()
        with goodput.spent("compiling"):
            programs = compile_programs(experiment, state, signals, display, progress.step)
        _describe(workdir, experiment, changes, display)
        reporter = _make_reporter(experiment, workdir, notes, display, goodput, profile)
        loop = _make_loop(experiment, programs, checkpoints, reporter, signals)
        try:
            with memory.explaining(programs.out_of_memory):
                loop.run(state, progress)
            display.say(f"{_say_best(checkpoints)}; the run is in {workdir}")
        finally:
            display.stop()
            for opened in (checkpoints, reporter, experiment.train_loader, experiment.eval_loader):
                opened.close()
            display.say(goodput.line())
            if is_lead():
                run.note_end(workdir, goodput.record(), check_owner)


def _say_finished(workdir: str, checkpoints: Checkpoints, notes: Notes, display: Display) -> None:
    best = _say_best(checkpoints)
    display.say(f"{workdir} is finished after {notes.step} steps; nothing to do; {best}")
    checkpoints.close()


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
    """Says what the run is; returns its state: the checkpoint's, else a fresh one."""
    for row in introduction.rows(experiment, workdir):
        display.row(*row)
    for line in [*changes, *introduction.warnings(experiment)]:
        display.say(line)
    if notes:
        epoch = experiment.plan.epoch(notes.step)
        display.say(f"going on from step {notes.step} (epoch {epoch:g})")
    state = experiment.create_state(for_checkpoint=notes is not None)
    for line in experiment.notes:
        display.say(line)
    if not notes:
        return state
    saved = checkpoints.restore(notes.step, state.saved())
    if state.ema is not None and "ema" not in saved:
        display.say(f"step {notes.step} has no moving average: it starts from the parameters there")
        saved["ema"] = state.ema.begun_at(saved["params"], saved["batch_stats"])
    return state.replace(**saved)


def _describe(workdir: str, experiment: Experiment, changes: list[str], display: Display) -> None:
    """Keeps what the run is: last, so that a start that was refused has changed nothing."""
    if not is_lead():
        return
    sources = experiment.train_loader.source, experiment.eval_loader.source
    run.describe(workdir, experiment.config, *sources, changes=changes, say=display.say)
    count = experiment.config.keep_thumbnails
    if why := thumbnails.keep(workdir, experiment.eval_loader, count):
        display.say(why)


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
            programs.evaluation_out_of_memory,
            experiment.config.ema.score_both,
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


def _restore_classes(workdir: str, experiment: Experiment, display: Display) -> None:
    """Writes the files of a finished run again where the names of its classes are lost."""
    if not is_lead():
        return
    try:
        run.read_classes(workdir)
    except UserError:
        sources = experiment.train_loader.source, experiment.eval_loader.source
        run.describe(workdir, experiment.config, *sources, say=display.say)


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
