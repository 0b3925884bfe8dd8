"""Training on one GPU beside the peers: PyTorch with torch.compile and stock Flax, in alternation.

    python -m benchmarks.gpu_training --output results

trains with synthetic images in bfloat16, ResNet-50 first, and writes gpu_training.md and
gpu_training.json after every match; figures of other matches and of other devices that are already
there stay. Every contestant has a process of its own and they take turns of some seconds; speeds
and ratios are medians over the rounds. With --minutes=N what matters most comes first and what does
not fit is left out. --variants times other formulations and XLA flags beside ours.

    python -m benchmarks.gpu_training --device=cpu --networks resnet18 --side 32 --batch 8 --rounds
    2

is the small form without a GPU.
"""

import argparse
import datetime
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks import gpu_page
from benchmarks.contest import Failure, alternate, machine
from benchmarks.gpu_contestants import BATCHES, CONTESTANTS, DEFAULT, OURS, VARIANTS
from benchmarks.worker import Contestant, Problem, Worker, is_out_of_memory

EVERYONE = CONTESTANTS | VARIANTS
# Seconds that a contestant may take over a turn, and until its first steps are done.
TURN_LIMIT = 120.0
START_LIMIT = 900.0
# Rounds for which time is kept back while contestants start.
KEPT_ROUNDS = 3
PROFILED_STEPS = 5


class Clock:
    """The time that is left.

    Args:
      seconds: in all.
    """

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds
        self._dearest = 0.0

    def left(self) -> float:
        """Seconds left."""
        return max(0.0, self._end - time.monotonic())

    def has_time_for(self, contestants: int) -> bool:
        """Whether a match of so many would end in time, if each costs what the dearest cost so
        far.
        """
        return self.left() > self._dearest * contestants

    def spent(self, seconds: float, contestants: int) -> None:
        """Notes what a match cost."""
        self._dearest = max(self._dearest, seconds / contestants)


def play(
    problem: Problem, contestants: dict[str, Contestant], rounds: int, seconds: float, clock: Clock
) -> dict[str, Any]:
    """Plays a match.

    All contestants are alive at once. Those that run out of memory beside the others play again
    alone with the first one; a failure of any is noted and does not stop the others.

    Args:
      problem: what they train.
      contestants: who plays; the first is whom the others are compared with.
      rounds: turns of each, fewer where the time is up.
      seconds: of a turn.
      clock: of the whole run.

    Returns:
      "rounds": a list of {contestant: seconds a step}; "apart": the same lists for those who played
      again; "ready": their first answers; "peak_bytes"; "errors": {contestant: message};
      "breakdown" of the first contestant's step.
    """
    first = next(iter(contestants))
    match = _play_together(problem, contestants, rounds, seconds, clock)
    match["apart"] = {}
    crowded = [name for name, error in match["errors"].items() if is_out_of_memory(error)]
    for name in crowded if len(contestants) > 1 else ():
        if not clock.left():
            break
        pair = {first: contestants[first], name: contestants[name]}
        again = _play_together(problem, pair, rounds, seconds, clock)
        match["apart"][name] = again["rounds"]
        if name in again["errors"]:
            match["errors"][name] = again["errors"][name]
        else:
            del match["errors"][name]
        for field in ("ready", "peak_bytes"):
            match[field] = {**again[field], **match[field]}
        match["breakdown"] = match["breakdown"] or again["breakdown"]
    return match


def _play_together(
    problem: Problem, contestants: dict[str, Contestant], rounds: int, seconds: float, clock: Clock
) -> dict[str, Any]:
    workers, errors, peaks, breakdown = {}, {}, {}, None
    kept = KEPT_ROUNDS * seconds * len(contestants)
    try:
        for name, contestant in contestants.items():
            try:
                workers[name] = Worker(contestant, problem, min(clock.left() - kept, START_LIMIT))
            except Failure as failure:
                errors[name] = str(failure)
        turns = {
            name: partial(worker.turn, seconds, TURN_LIMIT) for name, worker in workers.items()
        }
        played, left = alternate(turns, rounds, over=lambda: not clock.left())
        errors |= left
        for name in workers.keys() - left.keys():
            try:
                peaks[name] = workers[name].ask({"verb": "memory"}, TURN_LIMIT)["peak_bytes"]
                if name == OURS:
                    request = {"verb": "profile", "steps": PROFILED_STEPS}
                    breakdown = workers[name].ask(request, TURN_LIMIT)
            except Failure as failure:
                errors[name] = f"after its turns: {failure}"
        ready = {name: worker.ready for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    return {
        "rounds": played,
        "ready": ready,
        "peak_bytes": peaks,
        "errors": errors,
        "breakdown": breakdown,
    }


def plan(arguments: argparse.Namespace) -> Iterator[tuple[Problem, tuple[str, ...]]]:
    """The matches in the order of their weight: what is trained, and by whom."""
    fields = {"side": arguments.side, "dtype": arguments.dtype, "device": arguments.device}
    problems = [
        Problem(network, batch, **fields)
        for network in arguments.networks
        for batch in arguments.batch or BATCHES.get(network, (128,))
    ]
    if arguments.variants is None:
        yield from ((problem, tuple(arguments.contestants)) for problem in problems)
        return
    names = arguments.variants or list(VARIANTS)
    for start in range(0, len(names), 2):
        yield problems[0], (OURS, *names[start : start + 2])


def run(arguments: argparse.Namespace, host: dict[str, Any], command: str) -> dict[str, Any]:
    """Plays all matches, printing and writing after each, and returns the record."""
    record = gpu_page.read(arguments.output)
    clock = Clock(60 * arguments.minutes if arguments.minutes else float("inf"))
    for problem, names in plan(arguments):
        if not clock.has_time_for(len(names)):
            print(
                f"left out, as the time is nearly up: {problem.network}, batch {problem.batch}:"
                f" {', '.join(names)}"
            )
            continue
        began = time.monotonic()
        contestants = {name: EVERYONE[name] for name in names}
        match = play(problem, contestants, arguments.rounds, arguments.seconds, clock)
        clock.spent(time.monotonic() - began, len(names))
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        match |= {
            "problem": problem._asdict(),
            "contestants": names,
            "date": date,
            "command": command,
        }
        device = next(
            (each["device"] for each in match["ready"].values()),
            (host["gpu"] or "cpu").split(",")[0],
        )
        gpu_page.add(record, device, host, match)
        print(gpu_page.match_table(device, match), flush=True)
        gpu_page.write(arguments.output, record)
    return record


def find_gpu() -> str | None:
    """Name, driver and power limit of the first GPU as nvidia-smi tells them; None without one."""
    if not shutil.which("nvidia-smi"):
        return None
    query = "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm"
    asked = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    lines = asked.stdout.splitlines()
    return lines[0] if asked.returncode == 0 and lines else None


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument(
        "--batch", nargs="+", type=int, help="batches of every network; each has its own otherwise"
    )
    parser.add_argument("--contestants", nargs="+", default=list(DEFAULT), choices=list(EVERYONE))
    parser.add_argument(
        "--variants", nargs="*", choices=list(VARIANTS), help="all of them if none is named"
    )
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--side", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument(
        "--minutes", type=float, help="after which no match is begun that would not end in time"
    )
    parser.add_argument(
        "--output", type=Path, help="folder for the tables; nothing is written without it"
    )
    parser.add_argument(
        "--pending", action="store_true", help="write what is still to be measured; run nothing"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    parsed = parse(arguments)
    # This process only counts shapes: it must not take the GPU from the contestants.
    jax.config.update("jax_platforms", "cpu")
    gpu = find_gpu()
    if parsed.pending or (parsed.device == "gpu" and not gpu):
        print(
            "no figures: "
            + ("none were asked for" if parsed.pending else "nvidia-smi finds no GPU here")
        )
        gpu_page.write(parsed.output, gpu_page.read(parsed.output))
        return
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "benchmarks.gpu_training", *words])
    host = {**machine(), "gpu": gpu if parsed.device == "gpu" else None}
    with tempfile.TemporaryDirectory(prefix="gpu_training_") as cache:
        # Ours starts anew in every match of variants: what was compiled once is kept to the end of
        # the run.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        run(parsed, host, command)


if __name__ == "__main__":
    main()
