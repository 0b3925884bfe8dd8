"""Train: put the parts together, say what they are, and run the loop."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from resnet_jax import data, run
from resnet_jax.distributed.mesh import describe_devices, is_lead, shard_batch
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.signals import Signals
from resnet_jax.experiment import Experiment, assemble, prepare_runtime
from resnet_jax.models.analysis.summary import summarize
from resnet_jax.training import memory, schedule
from resnet_jax.training.checkpointing.checkpoints import Notes
from resnet_jax.training.loop import Loop
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.reporting.goodput import Goodput
from resnet_jax.training.reporting.logbook import Logbook
from resnet_jax.training.reporting.trace import Trace
from resnet_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled steps, what the training step is given, and the seconds that compiling them
    took.
    """

    train_step: Any
    eval_step: Any
    shapes: Any
    seconds: float


def train(config: ConfigDict, workdir: str, *, profile: range = range(0)) -> None:
    """Trains a recipe in a workdir, or goes on with the run that is there.

    Args:
      config: a validated recipe.
      workdir: where the run is kept.
      profile: steps to record a trace of.

    Raises:
      UserError: something that the user can mend.
      Interrupted: a signal asked to stop, and the run is saved.
    """
    goodput = Goodput()
    config, changes = run.merge_with_saved(config, workdir)
    prepare_runtime(config)
    display = Display(silent=not is_lead())
    with Signals(silent=not is_lead()) as interrupts:
        parts = assemble(config, display.warn)
        checkpoints = run.open_checkpoints(workdir, parts.config, say=display.say)
        step = checkpoints.newest_intact()
        notes = None if step is None else checkpoints.notes(step)
        if notes is not None and step == parts.plan.total_steps and notes.scores:
            display.say(
                f"{workdir} is finished: {step} steps, {_say_scores(notes.scores)}; nothing to do"
            )
            checkpoints.close()
            return
        if notes is not None:
            run.check_data(workdir, parts.train_loader.source)
        if is_lead():
            run.describe(workdir, parts.config, parts.train_loader.source)
        state = parts.create_state()
        if notes is not None:
            state = checkpoints.restore(step, state)
        requests = Requests(interrupts, parts.mesh, parts.config.checkpoint.every_minutes)
        with goodput.spent("compiling"):
            programs = _compile(parts, state, requests, interrupts)
        display.table(_introduction(parts, programs, workdir))
        for line in [*changes, *_warnings(parts)]:
            display.say(line)
        if notes is not None:
            display.say(f"going on from step {step} (epoch {parts.plan.epoch(step):g})")
        logbook = _open_logbook(workdir, notes, display)
        loop = _make_loop(
            parts,
            programs,
            checkpoints=checkpoints,
            logbook=logbook,
            display=display,
            interrupts=interrupts,
            requests=requests,
            goodput=goodput,
            trace=Trace(workdir, profile, silent=not is_lead()),
        )
        try:
            with memory.explaining(lambda: memory.out_of_memory(parts, programs.shapes)):
                loop.run(state, notes)
            best = checkpoints.notes(checkpoints.best_step())
            display.say(
                f"best: {_say_scores(best.scores)} at step {best.step}; the run is in {workdir}"
            )
        finally:
            display.stop()
            for opened in (checkpoints, logbook, parts.train_loader, parts.eval_loader):
                opened.close()
            display.say(goodput.line())


def _warnings(parts: Experiment) -> list[str]:
    """Returns a line for everything in the recipe that is allowed and seldom meant."""
    trained, scored = parts.train_loader.source.split, parts.eval_loader.source.split
    lines = schedule.warnings(parts.config.schedule, parts.config.num_epochs)
    if data.splits.overlap(trained, scored):
        lines.append(
            f"{scored} is scored and {trained} trained on: the scores say nothing of other images"
        )
    if lacking := parts.eval_loader.source.lacking_classes():
        lines.append(f"{scored} is scored and has no image of {lacking} of the classes")
    return lines


def _open_logbook(workdir: str, notes: Notes | None, display: Display) -> Logbook:
    """Opens the log where a run begins, or goes on from what was noted beside its state."""
    return Logbook(
        workdir,
        step=notes.step if notes else 0,
        scored=bool(notes and notes.scores),
        silent=not is_lead(),
        say=display.say,
    )


def _make_loop(parts: Experiment, programs: Programs, **surroundings: Any) -> Loop:
    """Returns the loop over the recipe's data; `surroundings` are what a loop has beside steps and
    data.
    """
    return Loop(
        parts.plan,
        train_step=programs.train_step,
        eval_step=programs.eval_step,
        open_feed=lambda start, stop: parts.feed(parts.train_loader, start, stop),
        open_eval_feed=lambda: parts.feed(parts.eval_loader, 0, len(parts.eval_loader)),
        eval_split=parts.eval_loader.source.split,
        diagnose=functools.partial(data.diagnosis, source=parts.train_loader.source),
        **surroundings,
    )


def _compile(
    parts: Experiment, state: TrainState, requests: Requests, interrupts: Signals
) -> Programs:
    train_batch, eval_batch = (
        shard_batch(parts.mesh, loader[0]) for loader in (parts.train_loader, parts.eval_loader)
    )
    shapes = memory.shapes_of((state, train_batch, requests.array()))
    began = time.monotonic()

    def compile_train_step() -> Any:
        return parts.train_step().lower(*shapes).compile()

    def compile_eval_step() -> Any:
        return parts.eval_step().lower(state.variables, eval_batch, requests.array()).compile()

    with memory.explaining(lambda: memory.out_of_memory(parts, shapes)):
        train_step = interrupts.patiently(compile_train_step)
    limit = memory.device_gib()
    if limit is not None and memory.needed_gib(train_step) > limit:
        raise memory.out_of_memory(parts, shapes)
    eval_batch_size = parts.eval_loader.batch_size
    with memory.explaining(
        lambda: memory.evaluation_out_of_memory("config.eval_batch_size", eval_batch_size)
    ):
        eval_step = interrupts.patiently(compile_eval_step)
    return Programs(train_step, eval_step, shapes, time.monotonic() - began)


def _introduction(parts: Experiment, programs: Programs, workdir: str) -> dict[str, str]:
    """Returns what a person should know before the loop begins, name by name."""
    config, plan = parts.config, parts.plan
    height, width, channels = parts.train_loader.image_shape
    summary = summarize(parts.model, (height, width), channels)
    train_source, eval_source = parts.train_loader.source, parts.eval_loader.source
    warmup = (
        f", {config.schedule.warmup_epochs:g} epochs of warm-up"
        if config.schedule.warmup_epochs
        else ""
    )
    drops = f" at epochs {', '.join(f'{b:g}' for b in config.schedule.boundaries)}"
    shape = (
        f"× {config.schedule.factor:g}{drops}"
        if config.schedule.name == "step"
        else config.schedule.name
    )
    return {
        "devices": describe_devices(),
        "model": (
            f"{config.model.name}, {summary.params:,} parameters, {summary.macs / 1e6:,.1f} M"
            f" multiply-adds, {config.precision}"
        ),
        "data": (
            f"{train_source.name}, {len(train_source):,} {train_source.split} and"
            f" {len(eval_source):,} {eval_source.split} images of {height}×{width}×{channels},"
            f" {len(train_source.classes)} classes"
        ),
        "schedule": (
            f"{config.num_epochs:g} epochs of {plan.steps_per_epoch:,} steps;"
            f" {config.optimizer.name}, peak rate {parts.peak_rate:g}, {shape}{warmup}"
        ),
        "batch": (
            f"{config.batch_size} images, {config.batch_size // parts.mesh.size} a device"
            + (f" in {config.accumulate_steps} parts" if config.accumulate_steps > 1 else "")
        ),
        "compiled": (
            f"in {programs.seconds:.1f} s; a step takes "
            f"{memory.needed_gib(programs.train_step):.2f} GiB a device"
        ),
        "workdir": str(workdir),
    }


def _say_scores(scores: Mapping[str, float]) -> str:
    return f"top1 {scores['top1']:.4f} top5 {scores['top5']:.4f} loss {scores['loss']:.4f}"
