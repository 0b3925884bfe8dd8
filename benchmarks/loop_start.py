"""A start of the command line, timed from inside a process of its own.

    python -m benchmarks.loop_start REPORT STEPS --config=configs/quickstart.py --workdir=DIR

runs the command, lets a signal stop it after STEPS steps, and writes into the file REPORT what each
part of the start took and what was compiled. START_UP_BEGAN holds the time at which the process was
started.
"""

import time

_ENTERED = time.time()  # before anything heavy is imported

import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from unittest import mock  # noqa: E402

ROOT = Path(__file__).parents[1]
QUICKSTART = "--config=configs/quickstart.py"
COMPILED = "/jax/core/compile/backend_compile_duration"
MISSES = "/jax/compilation_cache/cache_misses"


def start(arguments: list[str], *, steps: int, cache: str) -> dict[str, Any]:
    """Starts the command in a new process, stops it after `steps` steps and returns what it
    reported.

    Args:
      arguments: of launch.py.
      steps: after how many of this start a signal is sent.
      cache: the directory of compiled programs.

    Returns:
      "parts": name -> seconds, in order, which add up to "first_step_seconds" since the process was
      started; "compile_seconds", "misses" and "programs": of the compilations or readings of the
      cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.loop_start", str(report), str(steps), *arguments],
            cwd=ROOT,
            env=os.environ
            | {
                "JAX_COMPILATION_CACHE_DIR": cache,
                "START_UP_BEGAN": repr(time.time()),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists():
            raise RuntimeError(done.stdout + done.stderr)
        return json.loads(report.read_text())


class Clock:
    """Collects what the parts of a start take; time between them is "the rest".

    Attributes:
      parts: name -> seconds.
    """

    def __init__(self):
        self.parts: dict[str, float] = {}
        self.compiling = 0.0

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside as `name`, but for compiling, which is a part of its own."""
        began, compiled = time.time(), self.compiling
        yield
        self.add(name, time.time() - began - (self.compiling - compiled))

    def add(self, name: str, seconds: float) -> None:
        self.parts[name] = self.parts.get(name, 0.0) + seconds

    def timing(self, name: str, work: Callable) -> Callable:
        """Returns `work`, counted as `name`."""

        def timed(*arguments: Any, **fields: Any) -> Any:
            with self.part(name):
                return work(*arguments, **fields)

        return timed


def run(report: Path, steps: int, arguments: list[str]) -> int:
    """Runs the command in this process and returns its exit status; see the page's head."""
    clock, began = Clock(), float(os.environ.get("START_UP_BEGAN", _ENTERED))
    clock.add("the interpreter", _ENTERED - began)
    with clock.part("import of jax and flax"):
        import flax.linen  # noqa: F401
        import jax
    with clock.part("import of the rest"):
        import launch
        from resnet_jax import experiment
        from resnet_jax.commands import train

    counts = {"programs": 0, "misses": 0}

    def note_duration(event: str, seconds: float, **_: Any) -> None:
        if event == COMPILED:
            counts["programs"] += 1
            clock.compiling += seconds

    def note(event: str, **_: Any) -> None:
        counts["misses"] += event == MISSES

    jax.monitoring.register_event_duration_secs_listener(note_duration)
    jax.monitoring.register_event_listener(note)
    steps_taken, first = 0, 0.0

    def open_loop(plan: Any, *, train_step: Callable, **others: Any) -> Any:
        def step(*state_and_batch: Any) -> Any:
            nonlocal steps_taken, first
            with clock.part("the first step") if not steps_taken else contextlib.nullcontext():
                result = train_step(*state_and_batch)
                jax.block_until_ready(result)
            first = first or time.time() - began
            steps_taken += 1
            if steps_taken == steps:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        return loop(plan, train_step=step, **others)

    loop = train.Loop
    watched = (
        (launch, "parse", "command line and recipe"),
        (train, "assemble", "data"),
        (experiment.Experiment, "create_state", "initial state: traced and run"),
        (train, "_compile", "steps: traced and lowered"),
        (train, "_introduction", "the introduction"),
        (train, "Logbook", "the log"),
    )
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(train, "Loop", open_loop))
        for owner, name, part in watched:
            patches.enter_context(
                mock.patch.object(owner, name, clock.timing(part, getattr(owner, name)))
            )
        status = launch.main(["launch.py", *arguments])
    clock.parts["compiled, or read from the cache"] = clock.compiling
    clock.parts["the rest"] = first - sum(clock.parts.values())
    record = {
        "first_step_seconds": first,
        "parts": clock.parts,
        "compile_seconds": clock.compiling,
        **counts,
    }
    report.write_text(json.dumps(record))
    return status


def import_seconds(statement: str) -> float:
    """Returns what a new interpreter takes over a statement, the interpreter's own start aside."""
    code = (
        f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    )
    return float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))


def help_seconds() -> float:
    """Returns what `launch.py --help` takes, from process start to end."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "launch.py", "--help"], cwd=ROOT, check=True, capture_output=True
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
