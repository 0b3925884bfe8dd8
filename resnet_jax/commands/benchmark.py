"""`--mode=benchmark`: how fast a recipe runs on this machine, beside what the machine could do."""

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax.commands import Verb
from resnet_jax.distributed.consensus import lead_says
from resnet_jax.distributed.mesh import describe_devices, is_lead, shard_batch
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.experiment import Experiment
from resnet_jax.models.analysis.roofline import DATA_SHEETS
from resnet_jax.models.analysis.summary import summarize
from resnet_jax.training.reporting.display import Display


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one step: the median of several stretches, and half their interquartile range."""

    median: float
    spread: float

    @classmethod
    def of(cls, samples: list[float]) -> "Timing":
        low, middle, high = statistics.quantiles(samples, n=4)
        return cls(middle, (high - low) / 2)


def benchmark(config: ConfigDict, *, seconds: float = 10.0) -> None:
    """Measures a recipe and prints a table, then one JSON object on the last line.

    The bare step runs again and again on one batch that lies on the devices; the whole loop feeds
    it from the recipe's data. Both are timed in stretches that end when the devices are done.
    Speeds stand beside ceilings: those of a GPU's data sheet, else of a matrix product and a copy
    measured here. They hold for the operations of the definition; on CPUs, Winograd's algorithm and
    taps left out can save more than is lost.

    Args:
      config: a validated recipe; its data must be there.
      seconds: for how long each of the three is measured, compilation aside.

    Raises:
      UserError: the data is missing, or the batch does not divide over the devices.
    """
    prepare_runtime(config.precision, config.deterministic)
    display = Display(silent=not is_lead())
    config = config_lib.copy_of(config)
    # A step of the last size, which is the largest.
    config.data.progressive_sizes = config.data.progressive_epochs = ()
    experiment = Experiment.for_training(config)
    state = experiment.create_state()
    train_batch, eval_batch = (
        shard_batch(experiment.mesh, loader[0])
        for loader in (experiment.train_loader, experiment.eval_loader)
    )
    with display.waiting("compiling"):
        train_step, train_compile = _compile(experiment.train_step, state, train_batch)
        eval_step, eval_compile = _compile(experiment.eval_step, state.eval_variables, eval_batch)
    with display.waiting(f"timing inference for {seconds:g} s"):
        inference = time_steps(lambda: eval_step(state.eval_variables, eval_batch), seconds)
    stepper = Stepper(train_step, state)
    with display.waiting(f"timing training on one batch for {seconds:g} s"):
        training = time_steps(functools.partial(stepper, train_batch), seconds)
    with display.waiting(f"timing training with its data for {seconds:g} s"):
        loop, data_wait = _time_loop(experiment, stepper, training.median, seconds)
    batch, images = config.batch_size, experiment.eval_loader.batch_size
    record = {
        "device": describe_devices(),
        "model": config.model.name,
        "precision": experiment.config.precision,
        "image": list(experiment.train_loader.image_shape),
        "batch_size": batch,
        "compile_seconds": {"train": train_compile, "eval": eval_compile},
        "step_ms": {name: round(1e3 * getattr(training, name), 3) for name in ("median", "spread")},
        "images_per_sec": {
            "training": round(batch / training.median, 1),
            "loop": round(batch / loop, 1),
            "inference": round(images / inference.median, 1),
        },
        "data_wait": round(data_wait, 4),
        "peak_memory_gib": _peak_memory(train_step),
        **_ceilings(batch / training.median / experiment.mesh.size, experiment),
    }
    for name, value in (rows := _rows(record)).items():
        display.row(name, value, max(map(len, rows)))
    display.say(json.dumps(record))


def _compile(step: Any, *arguments: Any) -> tuple[Any, float]:
    """Returns a compiled step and how many seconds that took."""
    began = time.perf_counter()
    return step.lower(*arguments).compile(), round(time.perf_counter() - began, 2)


class Stepper:
    """Calls a training step with the state that its last call returned; the state is donated."""

    def __init__(self, train_step: Callable, state: Any):
        self._train_step, self._state = train_step, state

    def __call__(self, batch: dict[str, jax.Array]) -> Any:
        self._state, metrics = self._train_step(self._state, batch)
        return metrics


def time_steps(step: Callable[[], Any], seconds: float, stretches: int = 9) -> Timing:
    """Times a step that returns device arrays.

    Args:
      step: starts one step.
      seconds: how long to measure; every stretch has at least one step.
      stretches: how many samples to take.

    Returns:
      The time of one step.
    """
    jax.block_until_ready(step())
    began = time.perf_counter()
    jax.block_until_ready(step())
    # Clocks differ, but all processes must take as many steps.
    steps = lead_says(max(1, int(seconds / stretches / (time.perf_counter() - began))))
    samples = []
    for _ in range(stretches):
        began = time.perf_counter()
        for _ in range(steps):
            result = step()
        jax.block_until_ready(result)
        samples.append((time.perf_counter() - began) / steps)
    return Timing.of(samples)


def _time_loop(
    experiment: Experiment, stepper: Stepper, step_seconds: float, seconds: float
) -> tuple[float, float]:
    """Returns the loop's seconds a step with its data, and the share of waiting for data."""
    steps = lead_says(max(5, int(seconds / step_seconds)))
    warm = min(3, steps // 2)
    with experiment.batches(experiment.train_loader, 0, steps + warm) as batches:
        before = None
        for number, batch in batches:
            if number == warm:
                jax.block_until_ready(before)
                began, waited = time.perf_counter(), batches.wait
            metrics = stepper(batch)
            jax.device_get(before)
            before = metrics
        jax.block_until_ready(before)
        elapsed = time.perf_counter() - began
        return elapsed / steps, (batches.wait - waited) / elapsed


def _peak_memory(compiled: Any) -> float:
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return round(stats["peak_bytes_in_use"] / 2**30, 3)
    use = compiled.memory_analysis()
    return round((use.argument_size_in_bytes + use.temp_size_in_bytes) / 2**30, 3)


def _ceilings(images_per_sec: float, experiment: Experiment) -> dict[str, Any]:
    """Puts a device's training speed beside what its arithmetic and its memory allow."""
    kind, dtype = jax.devices()[0].device_kind, jnp.dtype(experiment.model.dtype)
    height, width, channels = experiment.train_loader.image_shape
    floor = summarize(experiment.model, (height, width), channels).floor
    wide = dtype.itemsize // 2  # the floor is counted for values of two bytes
    floor = floor._replace(
        unfused_bytes=wide * floor.unfused_bytes, fused_bytes=wide * floor.fused_bytes
    )
    known = DATA_SHEETS.get(kind) if dtype.itemsize == 2 else None
    peak, bandwidth = known or (measure_matmul(dtype=dtype), measure_copy())
    bounds = {
        "compute": peak / floor.flops,
        "memory_unfused": bandwidth / floor.unfused_bytes,
        "memory_fused": bandwidth / floor.fused_bytes,
    }
    return {
        "per_image": {
            "training_gflop": round(floor.flops / 1e9, 3),
            "unfused_mb": round(floor.unfused_bytes / 1e6, 2),
            "fused_mb": round(floor.fused_bytes / 1e6, 2),
        },
        "ceilings": {
            "source": f"data sheet of {kind}" if known else f"measured here: {dtype} matmul, copy",
            "tflops": round(peak / 1e12, 3),
            "gb_per_sec": round(bandwidth / 1e9, 1),
        },
        "tflops": round(images_per_sec * floor.flops / 1e12, 3),
        "bound_images_per_sec": {name: round(bound, 1) for name, bound in bounds.items()},
        "share_of_bound": {
            name: round(images_per_sec / bound, 4) for name, bound in bounds.items()
        },
    }


def measure_matmul(size: int = 2048, dtype: Any = jnp.float32) -> float:
    """Returns the FLOP/s of a square matrix product."""
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    return 2 * size**3 / time_steps(lambda: product(a), 1.0).median


def measure_copy(size: int = 1 << 26) -> float:
    """Returns the bytes/s, read and written, of scaling a float32 array of `size` elements."""
    a = jax.random.normal(jax.random.key(0), (size,))
    scale = jax.jit(lambda x: x * jnp.float32(1.5))
    return 2 * 4 * size / time_steps(lambda: scale(a), 1.0).median


def _rows(record: dict[str, Any]) -> dict[str, str]:
    speed, share, bound = (
        record[name] for name in ("images_per_sec", "share_of_bound", "bound_images_per_sec")
    )
    ceilings, image = record["ceilings"], record["per_image"]
    return {
        "device": record["device"],
        "model": (
            f"{record['model']}, {record['precision']}, images of"
            f" {'×'.join(map(str, record['image']))}"
        ),
        "batch": f"{record['batch_size']} images",
        "compile": (
            f"train {record['compile_seconds']['train']} s, eval"
            f" {record['compile_seconds']['eval']} s"
        ),
        "step": f"{record['step_ms']['median']} ms ± {record['step_ms']['spread']}",
        "training": f"{speed['training']} images/s, {record['tflops']} TFLOP/s",
        "loop": f"{speed['loop']} images/s with its data, data wait {record['data_wait']:.1%}",
        "inference": f"{speed['inference']} images/s",
        "memory": f"{record['peak_memory_gib']} GiB at the peak",
        "one image": (
            f"{image['training_gflop']} GFLOP, {image['unfused_mb']} MB unfused,"
            f" {image['fused_mb']} MB fused"
        ),
        "ceilings": (
            f"{ceilings['tflops']} TFLOP/s, {ceilings['gb_per_sec']} GB/s ({ceilings['source']})"
        ),
        **{
            name.replace(
                "_", " "
            ): f"{bound[name]} images/s a device; {share[name]:.1%} of it reached"
            for name in bound
        },
    }


VERB = Verb(
    "measures how fast a recipe runs here, beside what the device could do",
    lambda arguments: benchmark(arguments.recipe()),
    lambda values: None,
    takes_recipe=True,
)
