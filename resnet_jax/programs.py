"""The compiled steps of a run, and what to change where one does not fit into memory."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.training import memory
from resnet_jax.training.plan import Phase
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled steps.

    Attributes:
      train_steps: each with the number of the first step it does not take.
      eval_step: scores a batch.
      out_of_memory, evaluation_out_of_memory: () -> the error of a step that does not fit.
    """

    train_steps: list[tuple[int, Any]]
    eval_step: Any
    out_of_memory: Callable[[], UserError]
    evaluation_out_of_memory: Callable[[], UserError]

    def step_at(self, number: int) -> Any:
        """Returns the training step that takes the state of `number` steps to the next."""
        return next(step for end, step in self.train_steps if number < end)

    def needed_gib(self) -> float:
        return max((memory.needed_gib(step) for _, step in self.train_steps), default=0.0)


def compile_programs(
    experiment: Experiment,
    state: TrainState,
    signals: Signals,
    display: Display,
    first_step: int,
) -> Programs:
    """Compiles the steps to come, so that one that does not fit is told before any is taken.

    Args:
      experiment: what to compile.
      state: before `first_step`.
      signals: one to stop ends the process.
      display: told what is under way, and how it went.
      first_step: the number of the first step to take.

    Raises:
      UserError: a step does not fit into the memory of a device; the message says what would.
    """
    train_batch, eval_batch = (
        shard_batch(experiment.mesh, loader[0])
        for loader in (experiment.train_loader, experiment.eval_loader)
    )
    shapes = memory.shapes_of((state, train_batch))
    to_come = [phase for phase in experiment.phases if phase.end > first_step]
    out_of_memory = functools.partial(_out_of_memory, experiment, shapes, to_come)
    evaluation_out_of_memory = functools.partial(
        memory.evaluation_out_of_memory,
        "config.eval_batch_size",
        experiment.eval_loader.batch_size,
    )
    began = time.monotonic()

    def compile_train_steps() -> list[tuple[int, Any]]:
        return [
            (phase.end, phase.step.lower(*_with_images(shapes, phase.image_shape)).compile())
            for phase in to_come
        ]

    def compile_eval_step() -> Any:
        return experiment.eval_step.lower(state.eval_variables, eval_batch).compile()

    with display.waiting("compiling"), memory.explaining(out_of_memory):
        train_steps = signals.patiently(compile_train_steps)
    if not all(memory.fits(step) for _, step in train_steps):
        raise out_of_memory()
    with (
        display.waiting("compiling the evaluation"),
        memory.explaining(evaluation_out_of_memory),
    ):
        eval_step = signals.patiently(compile_eval_step)
    if not memory.fits(eval_step):
        raise evaluation_out_of_memory()
    programs = Programs(train_steps, eval_step, out_of_memory, evaluation_out_of_memory)
    display.row(
        "compiled",
        f"in {time.monotonic() - began:.1f} s; a step takes {programs.needed_gib():.2f} GiB a "
        "device",
    )
    return programs


def _with_images(shapes: Any, image_shape: tuple[int, ...]) -> Any:
    """Returns the shapes of a step's arguments with images [N, H, W, C] of another size."""
    state, batch = shapes
    image = batch["image"]
    shape = (image.shape[0], *image_shape)
    resized = jax.ShapeDtypeStruct(shape, image.dtype, sharding=image.sharding)
    return state, {**batch, "image": resized}


def _out_of_memory(experiment: Experiment, shapes: Any, to_come: Sequence[Phase]) -> UserError:
    config = experiment.config
    largest = _with_images(shapes, max((phase.image_shape for phase in to_come), key=math.prod))
    is_frozen = all(phase.is_frozen for phase in to_come)

    def compile_in(parts: int) -> Any:
        step = experiment.make_train_step(parts, is_frozen=is_frozen)
        return step.lower(*largest).compile()

    return memory.out_of_memory(
        config.batch_size,
        config.batch_size // experiment.mesh.size,
        config.accumulate_steps,
        compile_in,
    )
