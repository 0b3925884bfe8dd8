"""What every contest between this project and its peers shares: the problem, the turns and the
arithmetic of ratios.

A contestant is a module with a function

    make_step(name, images, labels, num_classes, **options) -> step

where images are [N, H, W, C] in float32 and labels [N] (both NumPy), and `step()` trains
`network(name)` for one step of momentum SGD with weight decay on that batch and returns the loss:
`float()` of it waits until the step is done.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from benchmarks.run_logs import RECIPES, load_recipe
from resnet_jax import create_model
from resnet_jax.config import build_model
from resnet_jax.data.images.decode import cores

Step = Callable[[], Any]


class Failure(Exception):
    """A contestant is out of the contest; the message says why, in one line."""


class Ratio(NamedTuple):
    """A median over rounds, with the range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Ratio":
        return cls(statistics.median(values), min(values), max(values))


def network(name: str, **fields: Any) -> nn.Module:
    """A network by its name: `create_model`'s, or that of the recipe configs/<name>.py; `fields`
    hold over its own.
    """
    if (RECIPES / f"{name}.py").is_file():
        return build_model(load_recipe(name)).clone(**fields)
    return create_model(name, **fields)


def draw(batch: int, side: int, channels: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images [batch, side, side, channels], float32, and labels [batch], always the same."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, side, side, channels), np.float32)
    return images, rng.integers(0, num_classes, batch)


def turn(step: Step, steps: int) -> float:
    """Takes some steps, waits for the last and returns the seconds of one."""
    began = time.perf_counter()
    for _ in range(steps):
        loss = step()
    float(loss)
    return (time.perf_counter() - began) / steps


def alternate(
    turns: dict[str, Callable[[], float]], rounds: int, over: Callable[[], bool] = lambda: False
) -> tuple[list[dict[str, float]], dict[str, str]]:
    """Lets contestants take turns.

    Args:
      turns: contestant -> a function that takes its turn and returns the seconds of a step.
      rounds: how many turns each has.
      over: asked before each round after the first: whether to stop early.

    Returns:
      The rounds, each contestant -> seconds of a step; and contestant -> why it left, for those
      whose turn raised `Failure`. Who leaves is missing from that round and those after it.
    """
    played, left = [], {}
    for number in range(rounds):
        if number and over():
            break
        played.append({})
        for name in [name for name in turns if name not in left]:
            try:
                played[-1][name] = turns[name]()
            except Failure as failure:
                left[name] = str(failure)
    return played, left


def ratio(rounds: list[dict[str, float]], ours: str, theirs: str) -> Ratio | None:
    """How many times as fast `ours` is, round by round; None if they had no round together."""
    shared = [each[theirs] / each[ours] for each in rounds if ours in each and theirs in each]
    return Ratio.of(shared) if shared else None


def speed(rounds: list[dict[str, float]], name: str, batch: int) -> Ratio | None:
    """Images per second of a contestant over its rounds; None if it had none."""
    speeds = [batch / each[name] for each in rounds if name in each]
    return Ratio.of(speeds) if speeds else None


def versions(*packages: str) -> dict[str, str]:
    """The installed ones of some packages with their versions."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def say_versions(found: Mapping[str, str]) -> str:
    """Versions as a page says them."""
    return ", ".join(f"{name} {number}" for name, number in found.items())


def output_folder(path: str) -> Path:
    """A folder named on the command line, made at once: a place that cannot be written to is known
    before measuring.
    """
    made = Path(path)
    made.mkdir(parents=True, exist_ok=True)
    return made


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(
    packages: Sequence[str] = ("jax", "jaxlib", "flax", "torch", "torchvision"),
) -> dict[str, Any]:
    """What every figure depends on; the versions are those of `packages`."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "versions": versions(*packages),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "load_before": os.getloadavg()[0],
    }
