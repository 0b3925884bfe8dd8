"""`--mode=train`: say what a recipe is, train it, or go on with the run that is there."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from resnet_jax import data, run
from resnet_jax.commands import Arguments, Verb
from resnet_jax.data.splits import overlap
from resnet_jax.distributed.mesh import describe_devices, is_lead, shard_batch
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.models.analysis.summary import summarize
from resnet_jax.sweep import sweep
from resnet_jax.training import memory, schedule
from resnet_jax.training.checkpointing.checkpoints import Checkpoints, Notes
from resnet_jax.training.loop import EvaluatingSide, Loop, TrainingSide
from resnet_jax.training.progress import Progress
from resnet_jax.training.reporting import trace
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.reporting.goodput import Goodput
from resnet_jax.training.reporting.logbook import Logbook
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


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled steps.

    Attributes:
      train_steps: each with the number of the first step it does not take.
      eval_step: scores a batch.
      shapes: of what a training step takes.
      seconds: that compiling took.
    """

    train_steps: list[tuple[int, Any]]
    eval_step: Any
    shapes: Any
    seconds: float

    def step_at(self, number: int) -> Any:
        """Returns the training step that takes the state of `number` steps to the next."""
        return next(step for end, step in self.train_steps if number < end)

    def needed_gib(self) -> float:
        return max(memory.needed_gib(step) for _, step in self.train_steps)


def train(config: ConfigDict, workdir: str, *, profile: range = range(0)) -> None:
    """Trains a recipe in a workdir, or goes on with the run that is there.

    Args:
      config: a validated recipe.
      workdir: where the run is kept.
      profile: steps to record a trace of.

    Raises:
      UserError: something that the user can fix.
      Interrupted: a signal asked to stop, and the run is saved.
    """
    goodput = Goodput()
    config, changes = run.merge_with_saved(config, workdir)
    prepare_runtime(config.precision, config.deterministic)
    display = Display(silent=not is_lead())
    with Signals(silent=not is_lead()) as signals:
        experiment = Experiment.for_training(config, display.warn)
        checkpoints = run.open_checkpoints(workdir, experiment.config, say=display.say)
        notes = _newest_notes(checkpoints)
        if notes and notes.scores and notes.step == experiment.plan.total_steps:
            scores = _say_scores(notes.scores)
            display.say(f"{workdir} is finished: {notes.step} steps, {scores}; nothing to do")
            checkpoints.close()
            return
        state = _begin(workdir, experiment, checkpoints, notes)
        with goodput.spent("compiling"):
            programs = _compile(experiment, state, signals, notes.step if notes else 0)
        display.table(_introduction(experiment, programs, workdir))
        for line in [
            *changes,
            *experiment.notes,
            *_warnings(experiment),
            *_resumption(experiment, notes),
        ]:
            display.say(line)
        logbook = _open_logbook(workdir, notes, display)
        requests = Requests(signals, experiment.mesh, experiment.config.checkpoint.every_minutes)
        recorder = trace.Trace(workdir, profile, silent=not is_lead())
        reporter = Reporter(
            experiment.plan, display, logbook, goodput, recorder, _diagnose(experiment)
        )
        loop = _make_loop(experiment, programs, checkpoints, reporter, requests)
        try:
            with memory.explaining(lambda: _out_of_memory(experiment, programs.shapes)):
                loop.run(state, Progress.from_notes(notes) if notes else Progress())
            best = checkpoints.notes(checkpoints.best_step())
            scores = _say_scores(best.scores)
            display.say(f"best: {scores} at step {best.step}; the run is in {workdir}")
        finally:
            display.stop()
            for opened in (checkpoints, logbook, experiment.train_loader, experiment.eval_loader):
                opened.close()
            display.say(goodput.line())


def _newest_notes(checkpoints: Checkpoints) -> Notes | None:
    step = checkpoints.newest_intact()
    return None if step is None else checkpoints.notes(step)


def _begin(
    workdir: str, experiment: Experiment, checkpoints: Checkpoints, notes: Notes | None
) -> TrainState:
    """Writes down what the run is, and returns its state: the checkpoint's, else a fresh one."""
    source = experiment.train_loader.source
    if notes:
        run.check_data(workdir, source)
    if is_lead():
        run.describe(workdir, experiment.config, source)
    state = experiment.create_state()
    return state.replace(**checkpoints.restore(notes.step, state.saved())) if notes else state


def _compile(
    experiment: Experiment, state: TrainState, signals: Signals, first_step: int
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

    with memory.explaining(lambda: _out_of_memory(experiment, shapes)):
        train_steps = signals.patiently(compile_train_steps)
    limit = memory.device_gib()
    if limit is not None and any(memory.needed_gib(step) > limit for _, step in train_steps):
        raise _out_of_memory(experiment, shapes)
    images = experiment.eval_loader.batch_size
    with memory.explaining(
        lambda: memory.evaluation_out_of_memory("config.eval_batch_size", images)
    ):
        eval_step = signals.patiently(compile_eval_step)
    return Programs(train_steps, eval_step, shapes, time.monotonic() - began)


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
    requests: Requests,
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
        requests,
    )


def _open_logbook(workdir: str, notes: Notes | None, display: Display) -> Logbook:
    """Opens the log where a run begins, or goes on from what was noted beside its state."""
    return Logbook(
        workdir,
        step=notes.step if notes else 0,
        scored=bool(notes and notes.scores),
        silent=not is_lead(),
        say=display.say,
    )


def _diagnose(experiment: Experiment) -> Callable[[data.Prefetcher, int, float], str | None]:
    source = experiment.train_loader.source
    return lambda batches, images, seconds: data.diagnosis(batches, source, images, seconds)


def _warnings(experiment: Experiment) -> list[str]:
    """Returns a line for everything in the recipe that is allowed and seldom meant."""
    trained, source = experiment.train_loader.source.split, experiment.eval_loader.source
    lines = schedule.warnings(experiment.config.schedule, experiment.config.num_epochs)
    if overlap(trained, source.split):
        lines.append(
            f"{source.split} is scored and {trained} trained on: the scores say nothing of other "
            "images"
        )
    if lacking := source.lacking_classes():
        lines.append(f"{source.split} is scored and has no image of {lacking} of the classes")
    return lines


def _resumption(experiment: Experiment, notes: Notes | None) -> list[str]:
    if notes is None:
        return []
    return [f"going on from step {notes.step} (epoch {experiment.plan.epoch(notes.step):g})"]


def _introduction(experiment: Experiment, programs: Programs, workdir: str) -> dict[str, str]:
    """Returns what a person should know before the loop begins, name by name."""
    config, plan = experiment.config, experiment.plan
    train_source, eval_source = experiment.train_loader.source, experiment.eval_loader.source
    height, width, channels = experiment.train_loader.image_shape
    summary = summarize(experiment.model, (height, width), channels)
    shape = config.schedule.name
    if shape == "step":
        drops = ", ".join(f"{boundary:g}" for boundary in config.schedule.boundaries)
        shape = f"× {config.schedule.factor:g} at epochs {drops}"
    warmup = config.schedule.warmup_epochs
    parts = config.accumulate_steps
    groups = experiment.groups
    trains = groups.table(experiment.param_shapes) if groups else {}
    return {
        "devices": describe_devices(),
        "model": f"{config.model.name}, {summary.params:,} parameters, "
        f"{summary.macs / 1e6:,.1f} M multiply-adds, {config.precision}",
        "data": f"{train_source.name}, {len(train_source):,} {train_source.split} and "
        f"{len(eval_source):,} {eval_source.split} images of {height}×{width}×{channels}, "
        f"{len(train_source.classes)} classes",
        "schedule": f"{config.num_epochs:g} epochs of {plan.steps_per_epoch:,} steps; "
        f"{config.optimizer.name}, peak rate {experiment.peak_rate:g}, {shape}"
        + (f", {warmup:g} epochs of warm-up" if warmup else ""),
        "batch": f"{config.batch_size} images, {config.batch_size // experiment.mesh.size} a device"
        + (f" in {parts} parts" if parts > 1 else ""),
        **trains,
        "compiled": f"in {programs.seconds:.1f} s; a step takes "
        f"{programs.needed_gib():.2f} GiB a device",
        "workdir": str(workdir),
    }


def _say_scores(scores: Mapping[str, float]) -> str:
    return f"top1 {scores['top1']:.4f} top5 {scores['top5']:.4f} loss {scores['loss']:.4f}"


def main(arguments: Arguments) -> None:
    config, workdir = arguments.recipe(), arguments.workdir_of_recipe()
    if arguments.sweep and arguments.profile:
        raise UserError("--profile records one run: leave out --sweep")
    if arguments.sweep:
        sweep(config, arguments.sweep, workdir, train)
    else:
        profile = trace.parse(arguments.profile) if arguments.profile else range(0)
        train(config, workdir, profile=profile)


VERB = Verb("trains a recipe, or goes on with its run", main, define_flags, takes_recipe=True)
