"""Training on the CPU beside the peers: stock Flax and PyTorch, in one process and in alternation.

    python -m benchmarks.cpu_training --output results

measures images per second; with --output it writes cpu_training.md and cpu_training.json there. A round takes a
few steps of each contestant in turn; what is reported is the median over the rounds, of the speeds and of their ratios.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import torch

from benchmarks import flax_resnet, torch_resnet
from resnet_jax import create_model, parallel
from resnet_jax.training.loss import softmax_cross_entropy
from resnet_jax.training.optimizer import FIELDS, make_optimizer
from resnet_jax.training.state import create_state
from resnet_jax.training.step import make_train_step


class Case(NamedTuple):
    """A network, its images [side, side, channels], and the ratios to the peers that it must reach."""

    name: str
    side: int
    channels: int
    batch: int
    num_classes: int
    steps: int
    least: dict[str, float]


CASES = (
    Case("resnet18", 28, 1, 64, 10, 8, {"flax": 3.0, "torch": 0.65}),
    Case("resnet50", 224, 3, 16, 1000, 1, {"flax": 1.8, "torch": 0.55}),
)


def our_step(name: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> Callable[[], float]:
    """A function that takes a step of this project's training on the batch and returns the loss."""
    mesh = parallel.make_mesh(jax.devices("cpu")[:1])
    model = create_model(name, num_classes=num_classes)
    fields = {name: field.default for name, field in FIELDS.items()}
    optimizer = make_optimizer(fields, lambda step: 0.1)
    state = create_state(model, optimizer, images.shape[1:], seed=0, sharding=parallel.replicated(mesh))

    def augment(batch):
        return batch["images"], jax.nn.one_hot(batch["labels"], num_classes)

    step = make_train_step(model, optimizer, augment, softmax_cross_entropy, lambda step: 0.1, mesh, seed=0)
    batch = {"images": images, "labels": labels, "mask": np.ones(len(labels), bool)}
    batch = parallel.shard_batch(mesh, batch)
    wishes = parallel.shard_batch(mesh, {"wishes": np.zeros((1, 2), np.int32)})["wishes"]

    def run() -> float:
        nonlocal state
        state, metrics = step(state, batch, wishes)
        return float(metrics.sums["loss"]) / len(labels)

    return run


def measure(case: Case, rounds: int) -> dict:
    """Alternates the contestants over `rounds` rounds after a warm-up: seconds a step, compile seconds, losses."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(case.batch, case.side, case.side, case.channels)).astype(np.float32)
    labels = rng.integers(0, case.num_classes, case.batch)
    makers = {"ours": our_step, "flax": flax_resnet.make_step, "torch": torch_resnet.make_step}
    steps = {peer: make(case.name, images, labels, case.num_classes) for peer, make in makers.items()}
    first, losses, seconds = {}, {}, {peer: [] for peer in steps}
    for peer, step in steps.items():
        start = time.perf_counter()
        losses[peer] = step()
        first[peer] = time.perf_counter() - start
        step()
    for _ in range(rounds):
        for peer, step in steps.items():
            start = time.perf_counter()
            for _ in range(case.steps):
                step()
            seconds[peer].append((time.perf_counter() - start) / case.steps)
    return {"first_step_seconds": first, "first_loss": losses, "step_seconds": seconds}


def summarise(case: Case, measured: dict) -> dict:
    """Medians of the speeds (images/s) and of the ratios, round by round, of our speed to each peer's."""
    seconds = measured["step_seconds"]
    pairs = {
        peer: [theirs / ours for ours, theirs in zip(seconds["ours"], seconds[peer], strict=True)]
        for peer in case.least
    }
    return {
        **case._asdict(),
        **measured,
        "images_per_second": {peer: case.batch / statistics.median(times) for peer, times in seconds.items()},
        "ratio": {peer: statistics.median(ratios) for peer, ratios in pairs.items()},
        "ratio_range": {peer: (min(ratios), max(ratios)) for peer, ratios in pairs.items()},
    }


def machine() -> dict:
    """What the figures depend on."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "torch")},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "torch_threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
    }


def table(host: dict, results: list[dict], command: str) -> str:
    """The page: one row a network."""
    versions = ", ".join(f"{name} {number}" for name, number in host["versions"].items())
    rounds = len(results[0]["step_seconds"]["ours"])
    lines = [
        "# Training on the CPU beside the peers",
        "",
        f"`{command}` on {host['cores']} cores ({host['cpu']}), load {host['load_before']:.1f} before the run;",
        f"{versions}; float32. Images/s of whole training steps (momentum SGD with weight decay), contestants",
        f"alternating in one process, medians over {rounds} rounds. Ratios are the medians of the rounds' own ratios,",
        "with their range.",
        "",
        "| network | images | ours | stock Flax | PyTorch | ours / Flax | ours / PyTorch | first step (s) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        speed, first = result["images_per_second"], result["first_step_seconds"]
        ratios = [
            f"{result['ratio'][peer]:.2f} ({low:.2f} to {high:.2f}; at least {result['least'][peer]:g} wanted)"
            for peer, (low, high) in result["ratio_range"].items()
        ]
        size = f"{result['batch']} of {result['side']}x{result['side']}x{result['channels']}"
        speeds = " | ".join(f"{speed[peer]:.1f}" for peer in ("ours", "flax", "torch"))
        compiled = f"{first['ours']:.1f}, Flax {first['flax']:.1f}"
        lines.append(f"| {result['name']} | {size} | {speeds} | {' | '.join(ratios)} | {compiled} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="folder for the tables; nothing is written without it")
    arguments = parser.parse_args()
    host, results = machine(), []
    for case in CASES:
        if case.name in arguments.networks:
            results.append(summarise(case, measure(case, arguments.rounds)))
    command = f"python -m benchmarks.cpu_training --rounds={arguments.rounds}"
    page = table(host, results, command)
    print(page)
    if arguments.output:
        (arguments.output / "cpu_training.md").write_text(page)
        record = json.dumps({"machine": host, "results": results}, indent=1)
        (arguments.output / "cpu_training.json").write_text(record + "\n")


if __name__ == "__main__":
    main()
