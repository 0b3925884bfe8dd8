"""What every measurement shares: problems, turns, ratios with their range, processes, the machine.

A contestant in training is a module of `benchmarks.peers` with a function

    make_step(name, images, labels, num_classes, dtype, ...) -> step

where images are float32 [N, H, W, C] and labels int [N], both NumPy. Each call of `step()` trains
`network(name)` on them by momentum SGD with weight decay and returns the loss; `float()` of the
loss waits until the step is done.
"""

import contextlib
import json
import os
import re
import selectors
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import create_model, recipes
from resnet_jax.config import build_model
from resnet_jax.data.images.decode import cores

ROOT = Path(__file__).resolve().parents[1]
GRACE = 5.0  # seconds that a process which closed its pipe has to end by itself
Array, Step, Rounds = np.ndarray, Callable[[], Any], list[dict[str, float]]


class Failure(Exception):
    """A contestant cannot go on; the message says why, in one line."""


class Range(NamedTuple):
    """A median over rounds, with the lowest and the highest value."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Range | None":
        return cls(statistics.median(values), min(values), max(values)) if values else None


def load_recipe(name: str) -> ConfigDict:
    """Returns the recipe configs/<name>.py."""
    return recipes.load(ROOT / "configs" / f"{name}.py")


def network(name: str, **fields: Any) -> nn.Module:
    """Returns the network of the recipe configs/<name>.py, else `create_model`'s of that name."""
    if (ROOT / "configs" / f"{name}.py").is_file():
        return build_model(load_recipe(name)).clone(**fields)
    return create_model(name, **fields)


def draw(batch: int, side: int, channels: int, num_classes: int) -> tuple[Array, Array]:
    """Returns images [batch, side, side, channels] and labels [batch], random, always the same."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, side, side, channels), np.float32)
    return images, rng.integers(0, num_classes, batch)


def turn(step: Step, steps: int) -> float:
    """Takes some steps, waits for the last and returns the seconds of one."""
    return seconds_of(lambda: float([step() for _ in range(steps)][-1])) / steps


def seconds_of(work: Step) -> float:
    """Returns the seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternate(
    turns: Mapping[str, Callable[[], Any]], rounds: int, deadline: float = np.inf
) -> tuple[Rounds, dict[str, str]]:
    """Lets contestants take turns, so that what slows the machine down slows all of them.

    Each has a function that takes its turn and returns the seconds of a unit of work. No round but
    the first begins after a `deadline` of `time.monotonic`.

    Returns:
      The rounds; and contestant -> why it left, for those whose turn raised `Failure`. They are
      missing from that round and those after it.
    """
    played, left = [], {}
    while len(played) < rounds and not (played and time.monotonic() > deadline):
        played.append({})
        for name in [name for name in turns if name not in left]:
            try:
                played[-1][name] = turns[name]()
            except Failure as failure:
                left[name] = str(failure)
    return played, left


def ratio(rounds: Rounds, ours: str, theirs: str) -> Range | None:
    """How many times as fast `ours` is, round by round; None without a round of both."""
    return Range.of([each[theirs] / each[ours] for each in rounds if {ours, theirs} <= each.keys()])


def speed(rounds: Rounds, name: str, units: float) -> Range | None:
    """Units a second of a contestant whose rounds are the seconds of `units`."""
    return Range.of([units / each[name] for each in rounds if name in each])


class Worker:
    """A contestant in a process of its own, which answers JSON lines with JSON lines.

    In one process, JAX and PyTorch take memory and threads from each other, and a crash takes all
    along. A worker waits idle on its pipe while the others take their turns. Its first answer,
    `ready`, comes unasked, within `limit` seconds; `Failure` if not, as from `ask`.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], limit: float):
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        environment = {**os.environ, **environment}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        self.ready = self._answer(limit)

    def ask(self, limit: float, **request: Any) -> dict[str, Any]:
        """Sends a request and returns the answer, which comes within `limit` seconds."""
        with contextlib.suppress(OSError):  # a process that is gone: the answer says why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(limit)

    def close(self) -> None:
        """Ends the process and with it what it holds on the device."""
        self._process.kill()
        self._process.communicate()

    def _answer(self, limit: float) -> dict[str, Any]:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            came = waiting.select(max(limit, 0))
        line = self._process.stdout.readline() if came else b"{}"
        answer = json.loads(line or "{}")
        if answer and "error" not in answer:
            return answer
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if answer or not came else GRACE)
        self.close()
        self._log.seek(0)
        log = self._log.read().decode(errors="replace").splitlines()
        reasons = [each.strip()[:200] for each in log if "rror" in each or each.startswith("F")]
        ended = f"exit status {self._process.returncode}: {(reasons or log or [''])[-1]}"
        raise Failure(answer.get("error", ended) if came else f"no answer within {limit:.0f} s")


def machine(*packages: str) -> dict[str, Any]:
    """Returns what every figure depends on, with the versions of those `packages` installed."""
    described, found = Path("/proc/cpuinfo"), {}
    names = re.findall(r"model name\s*: (.*)", described.read_text() if described.exists() else "")
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    flags, load = os.environ.get("XLA_FLAGS", ""), round(os.getloadavg()[0], 2)
    cpu = names[0] if names else "unknown"
    return {
        "cpu": cpu,
        "cores": cores(),
        "versions": found,
        "xla_flags": flags,
        "load_before": load,
    }
