"""Training on the CPU beside the peers: stock Flax and PyTorch, in one process and in alternation.

    python -m benchmarks.cpu_training --output results

measures images per second; with --output it writes cpu_training.md and cpu_training.json there. A round takes a
few steps of each contestant in turn; what is reported is the median over the rounds, of the speeds and of their ratios.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import flax_resnet, our_resnet, torch_resnet
from benchmarks.contest import alternate, draw, machine, ratio, speed, turn
from resnet_jax.allocator import keep_freed_memory

CONTESTANTS = {"ours": our_resnet, "flax": flax_resnet, "torch": torch_resnet}


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


def measure(case: Case, rounds: int) -> dict:
    """Alternates the contestants over `rounds` rounds after a warm-up: seconds a step, compile seconds, losses."""
    images, labels = draw(case.batch, case.side, case.channels, case.num_classes)
    steps = {
        peer: contestant.make_step(case.name, images, labels, case.num_classes)
        for peer, contestant in CONTESTANTS.items()
    }
    first, losses = {}, {}
    for peer, step in steps.items():
        start = time.perf_counter()
        losses[peer] = float(step())
        first[peer] = time.perf_counter() - start
        float(step())
    turns = {peer: partial(turn, step, case.steps) for peer, step in steps.items()}
    played, _ = alternate(turns, rounds)
    return {"first_step_seconds": first, "first_loss": losses, "rounds": played}


def summarise(case: Case, measured: dict) -> dict:
    """Medians of the speeds (images/s) and of the ratios, round by round, of our speed to each peer's."""
    played = measured["rounds"]
    ratios = {peer: ratio(played, "ours", peer) for peer in case.least}
    return {
        **case._asdict(),
        **measured,
        "images_per_second": {peer: speed(played, peer, case.batch).median for peer in CONTESTANTS},
        "ratio": {peer: found.median for peer, found in ratios.items()},
        "ratio_range": {peer: (found.low, found.high) for peer, found in ratios.items()},
    }


def table(host: dict, results: list[dict], command: str) -> str:
    """The page: one row a network."""
    versions = ", ".join(f"{name} {number}" for name, number in host["versions"].items())
    rounds = len(results[0]["rounds"])
    lines = [
        "# Training on the CPU beside the peers",
        "",
        f"`{command}` on {host['cores']} cores ({host['cpu']}), load {host['load_before']:.1f} before the run;",
        f"{versions}; float32. Images/s of whole training steps (momentum SGD with weight decay), contestants",
        f"alternating in one process that keeps its freed memory, medians over {rounds} rounds. Ratios are the medians",
        "of the rounds' own ratios, with their range.",
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
    keep_freed_memory()
    host = {**machine(), "torch_threads": torch.get_num_threads()}
    results = []
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
