"""Whole training steps beside the peers: stock Flax and PyTorch, each in a process of its own.

    python -m benchmarks.train_step --output=results                            # on the CPU
    python -m benchmarks.train_step --device=gpu --minutes=15 --output=results  # on one GPU

On a GPU, ResNet-50 in bfloat16 comes first, then what the time allows. Record and page are written
after each match. --small tries all of that on a CPU.
"""

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import pages
from benchmarks.harness import Worker, alternate, network, ratio, speed
from resnet_jax.commands.benchmark import measure_matmul
from resnet_jax.models.analysis.roofline import DATA_SHEETS
from resnet_jax.models.analysis.summary import summarize

# Contestant -> module of `benchmarks.peers` and the options of its `make_step`.
CONTESTANTS = {
    "ours": ("ours", {}),
    "stock Flax": ("stock_flax", {}),
    "PyTorch": ("pytorch", {}),
    "PyTorch, memory kept": ("pytorch", {"keep_memory": True}),
    "torch.compile": ("pytorch", {"mode": "default"}),
    "CUDA graphs": ("pytorch", {"mode": "reduce-overhead"}),
}
START_LIMIT, TURN_LIMIT = 900.0, 120.0  # seconds
PROFILED_STEPS = 5


class Problem(NamedTuple):
    """What is trained: a network on random images [batch, side, side, channels]."""

    network: str
    batch: int
    side: int = 224
    channels: int = 3
    num_classes: int = 1000
    dtype: str = "float32"
    device: str = "cpu"


ON_CPU = ("ours", "stock Flax", "PyTorch", "PyTorch, memory kept")
ON_GPU = ("ours", "torch.compile", "stock Flax")
MATCHES = {
    "cpu": [
        (Problem("resnet18", 64, 28, 1, 10), ON_CPU),
        (Problem("resnet50", 16), ON_CPU),
        (Problem("fashion_mnist_best", 128, 28, 1, 10), ON_CPU),
    ],
    # What matters most first. At batch 512 no more than two fit into a GPU's memory.
    "gpu": [
        (Problem("resnet50", 256), ON_GPU),
        (Problem("resnet50", 128), ON_GPU),
        (Problem("resnet18", 512), ON_GPU),
        (Problem("resnet50", 256), ("ours", "CUDA graphs")),
        (Problem("resnet50", 512), ("ours", "torch.compile")),
        (Problem("resnet50", 512), ("ours", "stock Flax")),
    ],
}
SMALL, GPU = {"batch": 8, "side": 32}, {"device": "gpu", "dtype": "bfloat16"}


def play(
    problem: Problem, names: Sequence[str], rounds: int, seconds: float, deadline: float
) -> dict[str, Any]:
    """Plays a match: all contestants are alive at once and take turns; who fails is left out.

    A turn takes so many `seconds`, or one step; `deadline` is that of `alternate`.

    Returns:
      "rounds", each {contestant: seconds a step}; contestant -> "ready", its first answer, "last",
      its last, with memory and profile, and "errors", why it failed.
    """
    workers: dict[str, Worker] = {}

    def begin(name: str) -> dict[str, Any]:
        workers[name] = start(name, problem, min(START_LIMIT, max(0, deadline - time.monotonic())))
        return workers[name].ready

    def take_turn(name: str) -> float:
        steps = max(1, round(seconds / workers[name].ready["step"]))
        return workers[name].ask(TURN_LIMIT, verb="turn", steps=steps)["step"]

    def end(name: str) -> dict[str, Any]:
        profiled = PROFILED_STEPS if name == "ours" else 0
        return workers[name].ask(TURN_LIMIT, verb="finish", profiled=profiled)

    try:
        (ready,), errors = alternate({name: partial(begin, name) for name in names}, 1)
        turns = {name: partial(take_turn, name) for name in ready}
        played, left = alternate(turns, rounds, deadline)
        (last,), late = alternate({name: partial(end, name) for name in ready.keys() - left}, 1)
    finally:
        for worker in workers.values():
            worker.close()
    match = {"problem": problem._asdict(), "contestants": list(names), "rounds": played}
    return match | {"ready": ready, "last": last, "errors": errors | left | late}


def start(name: str, problem: Problem, limit: float) -> Worker:
    """Starts a contestant's process, see `Worker`.

    It has the platform asked for alone, so that a GPU that cannot be used is an error and not a
    slow run; and JAX takes memory as it needs it, since the others live beside it.
    """
    peer, options = CONTESTANTS[name]
    request = json.dumps({"peer": peer, "options": options, "problem": problem._asdict()})
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_PLATFORMS": "cpu"}
    if problem.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    elif peer != "pytorch":
        environment["JAX_PLATFORMS"] = "cuda"
    return Worker([sys.executable, "-m", "benchmarks.peers", request], environment, limit)


def bound(problem: Problem, device: str) -> float | None:
    """Returns images a second that a device allows, as far as it is known.

    A GPU's memory bandwidth, by its data sheet, over the traffic of unfused training, see
    `roofline`; a CPU's FLOP/s in a matrix product, measured now, over those of training.
    """
    model = network(problem.network, num_classes=problem.num_classes)
    floor = summarize(model, problem.side, problem.channels).floor
    if device in DATA_SHEETS:
        wide = jnp.dtype(problem.dtype).itemsize / 2  # the floor counts values of two bytes
        return DATA_SHEETS[device][1] / (wide * floor.unfused_bytes)
    return measure_matmul() / floor.flops if problem.device == "cpu" else None


def tables(matches: list[dict[str, Any]]) -> dict[str, list[pages.Row]]:
    """Returns the page's tables: a row a contestant, and where our step's time on a GPU goes."""
    rows = [row(match, name) for match in matches for name in match["contestants"]]
    found, first = {"Training steps": rows}, matches[0]
    profile = first["last"].get("ours", {}).get("profile")
    if profile and first["problem"]["device"] == "gpu":
        kinds = [*profile["categories"].items(), ("first kernel to last", profile["span"])]
        found["Our first step of these, by kind of work"] = [
            {"kind": kind, "ms a step": 1e3 * seconds} for kind, seconds in kinds
        ]
        found["Its longest instructions"] = [
            {"instruction": name, "kind": kind, "ms a step": 1e3 * seconds}
            for name, kind, seconds in profile["kernels"]
        ]
    return found


def row(match: dict[str, Any], name: str) -> pages.Row:
    """Returns the table's row of a contestant of a match."""
    problem, rounds = Problem(**match["problem"]), match["rounds"]
    found, peak = speed(rounds, name, problem.batch), match["last"].get(name, {}).get("peak")
    return {
        "network": problem.network,
        "images": f"{problem.batch} of {problem.side}x{problem.side}x{problem.channels}",
        "dtype": problem.dtype,
        "contestant": name,
        "images/s": found,
        "ours / it": ratio(rounds, "ours", name) if name != "ours" else None,
        "of the bound": found and match["bound"] and f"{found.median / match['bound']:.0%}",
        "first step (s)": match["ready"].get(name, {}).get("first_step"),
        "memory (GiB)": peak and peak / 2**30,
        "failed": match["errors"].get(name),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = pages.parser(__doc__, rounds=7)
    parser.add_argument("--device", choices=tuple(MATCHES), default="cpu")
    parser.add_argument("--networks", nargs="+", help="the matches of these alone")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--minutes", type=float, default=60.0, help="to stop after")
    parser.add_argument("--small", action="store_true", help="the GPU's matches on the CPU, tiny")
    options = parser.parse_args(arguments)
    deadline, dearest = time.monotonic() + 60 * options.minutes, 0.0
    # This process only counts shapes: it must not take the GPU from the contestants.
    jax.config.update("jax_platforms", "cpu")
    kind = "gpu" if options.small else options.device
    title = f"Training on {'one GPU' if kind == 'gpu' else 'the CPU'}, beside the peers"
    packages = ("jax", "jaxlib", "flax", "torch")
    result = pages.record(f"{kind}_training", title, "training", *packages) | {"matches": []}
    for problem, names in MATCHES[kind]:
        changes = SMALL if options.small else GPU if kind == "gpu" else {}
        problem, began = problem._replace(**changes), time.monotonic()
        if problem.network not in (options.networks or [problem.network]):
            continue
        # A match costs what the dearest so far has cost for each of its contestants.
        if began + dearest * len(names) > deadline:
            print(f"left out, as the time is nearly up: {', '.join(names)} at {problem}")
            continue
        match = play(problem, names, options.rounds, options.seconds, deadline)
        dearest = max(dearest, (time.monotonic() - began) / len(names))
        device = next((ready["device"] for ready in match["ready"].values()), problem.device)
        result["machine"]["device"] = device
        result["matches"].append(match | {"bound": bound(problem, device)})
        result["tables"] = tables(result["matches"])
        pages.save(result, options.output)


if __name__ == "__main__":
    main()
