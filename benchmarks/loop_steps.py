"""The training loop beside the bare step: the command's own path, timed from inside."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
from ml_collections import ConfigDict

from benchmarks.loop_start import COMPILED
from resnet_jax import config as recipe
from resnet_jax import experiment
from resnet_jax.commands import train
from resnet_jax.distributed.mesh import make_mesh, shard_batch
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.signals import Signals
from resnet_jax.training.evaluation import evaluate
from resnet_jax.training.loop import Loop

NEVER = 1e6
"""Epochs between what is not to happen; the end of a run is always evaluated and saved."""


def settings(**fields: Any) -> ConfigDict:
    """The quickstart's network on its digits, which lie in memory; `fields` change "room__name" for
    "room.name".
    """
    config = recipe.defaults()
    quick = {
        "batch_size": 64,
        "eval_every_epochs": NEVER,
        "checkpoint__every_epochs": NEVER,
        "data__name": "digits",
        "model__name": "resnet18",
        "model__stem": "small",
        "model__width": 16,
        "model__stage_sizes": (1, 1, 1),
        "optimizer__name": "sgd",
        "optimizer__momentum": 0.9,
        # Steps beyond the last: no rate may fall to a number that makes arithmetic slow.
        "schedule__name": "constant",
        "schedule__base_lr": 0.01,
    }
    for name, value in (quick | fields).items():
        recipe.set_field(config, name.replace("__", "."), value)
    recipe.validate(config)
    return config


class Stretches:
    """A training step that tells how long the loop took over each `length` of its calls.

    Args:
      step: the compiled program.
      length: calls of a stretch.
      between: called after a stretch with what the next call is given; returns the state to go on
        with.
      skip: calls before the first stretch.

    Attributes:
      seconds: of each whole stretch, from its first call until the device is done.
    """

    def __init__(self, step: Callable, length: int, between: Callable | None = None, skip: int = 0):
        self._step, self._length, self._between = step, length, between
        self._calls = -skip
        self.seconds: list[float] = []

    def __call__(self, state: Any, batch: Any, requests: Any) -> Any:
        if self._calls >= 0 and self._calls % self._length == 0:
            jax.block_until_ready(state)
            if self._calls:
                self.seconds.append(time.perf_counter() - self._began)
                if self._between is not None:
                    state = self._between(state, batch, requests)
            self._began = time.perf_counter()
        self._calls += 1
        return self._step(state, batch, requests)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Collects the names of the programs compiled, or read from the cache, inside."""
    names: list[str] = []

    def note(event: str, seconds: float, **details: Any) -> None:
        if event == COMPILED:
            names.append(details.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def run_training(config: ConfigDict, wrap: Callable[[dict[str, Any]], dict[str, Any]]) -> list[str]:
    """Trains as the command does; `wrap` may replace what the loop is given. Returns what was
    compiled in the loop.
    """
    with tempfile.TemporaryDirectory() as workdir, contextlib.ExitStack() as inside:
        compiled: list[str] = []

        def open_loop(plan, **parts):
            compiled.append(inside.enter_context(compilations()))
            return Loop(plan, **wrap(parts))

        with mock.patch.object(train, "Loop", open_loop):
            train.train(config, workdir)
        return compiled[0]


def time_loop(
    config: ConfigDict, *, rounds: int, epochs: int = 1, hollow: bool = False
) -> dict[str, Any]:
    """Times whole epochs of the loop, log lines included, each followed by as many bare steps
    on one batch.

    Args:
      config: a recipe with data in memory.
      rounds: pairs of stretches, after one that does not count.
      epochs: of a stretch.
      hollow: take a step that does nothing in place of the compiled one, after the first.

    Returns:
      Milliseconds a step of both, the median ratio with its range, and the programs compiled in the
      loop.
    """
    bare: list[float] = []
    config.num_epochs = epochs * (rounds + 1) + 1
    taken: list[Stretches] = []

    def wrap(parts: dict[str, Any]) -> dict[str, Any]:
        step, length = parts["train_step"], epochs * steps_per_epoch(config)
        step = _Hollow(step) if hollow else step

        def bare_steps(state, batch, requests):
            began = time.perf_counter()
            for _ in range(length):
                state, metrics = step(state, batch, requests)
            jax.block_until_ready((state, metrics))
            bare.append(time.perf_counter() - began)
            return state

        taken.append(Stretches(step, length, bare_steps))
        return parts | {"train_step": taken[0]}

    compiled = run_training(config, wrap)
    length = epochs * steps_per_epoch(config)
    pairs = list(zip(taken[0].seconds, bare, strict=True))[1:]
    ratios = [whole / alone for whole, alone in pairs]
    return {
        "steps_a_stretch": length,
        "rounds": len(pairs),
        "bare_ms": 1e3 * statistics.median(alone for _, alone in pairs) / length,
        "loop_ms": 1e3 * statistics.median(whole for whole, _ in pairs) / length,
        "overhead_ms": 1e3 * statistics.median(whole - alone for whole, alone in pairs) / length,
        "ratio": statistics.median(ratios),
        "ratio_range": (min(ratios), max(ratios)),
        "ratio_of_fastest": min(whole for whole, _ in pairs) / min(alone for _, alone in pairs),
        "compiled_in_loop": compiled,
    }


class _Hollow:
    """A step that computes once and gives the same answer ever after, so that the host's own work
    is what is left.
    """

    def __init__(self, step: Callable):
        self._step, self._metrics = step, None

    def __call__(self, state: Any, batch: Any, requests: Any) -> Any:
        if self._metrics is None:
            state, self._metrics = jax.block_until_ready(self._step(state, batch, requests))
        return state, self._metrics


def steps_per_epoch(config: ConfigDict) -> int:
    return len(experiment.make_loader(config, make_mesh(), train=True))


def time_evaluation(config: ConfigDict, *, rounds: int) -> dict[str, Any]:
    """Times the loop's evaluation of a split beside as many bare steps on its first batch, in
    alternation.

    Returns:
      Milliseconds a step of both, the median ratio with its range, how many images the last batch
      really has, and the programs compiled meanwhile.
    """
    parts = experiment.assemble(config)
    loader, variables = parts.eval_loader, parts.create_state().variables
    requests = Requests(Signals(), parts.mesh)
    batch = shard_batch(parts.mesh, loader[0])
    step = parts.eval_step().lower(variables, batch, requests.array()).compile()
    whole, bare = [], []
    with compilations() as compiled:
        for _ in range(rounds + 1):
            began = time.perf_counter()
            means, _ = evaluate(step, variables, parts.feed(loader, 0, len(loader)), requests)
            whole.append(time.perf_counter() - began)
            began = time.perf_counter()
            for _ in range(len(loader)):
                metrics = step(variables, batch, requests.array())
            jax.block_until_ready(metrics)
            bare.append(time.perf_counter() - began)
    pairs = list(zip(whole, bare, strict=True))[1:]
    ratios = [scored / alone for scored, alone in pairs]
    return {
        "steps": len(loader),
        "examples": means.examples,
        "batch_size": loader.batch_size,
        "last_batch": means.examples - (len(loader) - 1) * loader.batch_size,
        "rounds": len(pairs),
        "bare_ms": 1e3 * statistics.median(bare[1:]) / len(loader),
        "loop_ms": 1e3 * statistics.median(whole[1:]) / len(loader),
        "overhead_ms": (
            1e3 * statistics.median(scored - alone for scored, alone in pairs) / len(loader)
        ),
        "ratio": statistics.median(ratios),
        "ratio_range": (min(ratios), max(ratios)),
        "ratio_of_fastest": min(whole[1:]) / min(bare[1:]),
        "compiled": compiled,
    }


def time_saves(config: ConfigDict, *, rounds: int) -> dict[str, Any]:
    """Times epochs in which a checkpoint is made beside epochs in which none is, in alternation.

    A save falls on the end of every second epoch. The stretches begin in the middle of an epoch, so
    that the loop's wait for the copy and what the writing slows down lie in the same one.

    Returns:
      Seconds that a save holds the loop, that it costs altogether, until it is committed, and the
      state's megabytes.
    """
    recipe.set_field(config, "checkpoint.every_epochs", 2.0)
    config.num_epochs = 2 * (rounds + 1) + 1
    steps = steps_per_epoch(config)
    stretches, held, megabytes = [], [], []

    def wrap(parts: dict[str, Any]) -> dict[str, Any]:
        save = parts["checkpoints"].save

        def timed(state, notes):
            megabytes.append(sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6)
            began = time.perf_counter()
            save(state, notes)
            held.append(time.perf_counter() - began)

        parts["checkpoints"].save = timed
        stretches.append(Stretches(parts["train_step"], steps, skip=steps // 2))
        return parts | {"train_step": stretches[0]}

    committed: list[float] = []

    def note(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/orbax/write/async/total_duration_secs":
            committed.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        run_training(config, wrap)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    seconds = stretches[0].seconds
    pairs = list(zip(seconds[0::2], seconds[1::2], strict=True))[1:]
    extra = [saving - without for without, saving in pairs]
    return {
        "rounds": len(pairs),
        "state_megabytes": megabytes[0],
        "epoch_seconds": statistics.median(without for without, _ in pairs),
        "held_seconds": statistics.median(held[1:]),
        "extra_seconds": statistics.median(extra),
        "extra_range": (min(extra), max(extra)),
        "extra_of_fastest": (
            min(saving for _, saving in pairs) - min(without for without, _ in pairs)
        ),
        "committed_seconds": statistics.median(committed[1:]),
    }
