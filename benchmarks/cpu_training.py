"""Training on the CPU beside the peers: stock Flax and PyTorch, in one process and in alternation.

    python -m benchmarks.cpu_training --output results

measures images per second; with --output it writes cpu_training.md and cpu_training.json there. A
round takes a few steps of each contestant in turn; what is reported is the median over the rounds,
of the speeds and of their ratios.
"""

import argparse
import json
import sys
import time
from functools import partial
from typing import NamedTuple

import torch

from benchmarks import flax_resnet, our_resnet, torch_resnet
from benchmarks.contest import (
    alternate,
    draw,
    machine,
    network,
    output_folder,
    ratio,
    say_versions,
    speed,
    turn,
)
from benchmarks.run_logs import command_line
from resnet_jax.commands.benchmark import measure_matmul
from resnet_jax.distributed.runtime import keep_freed_memory
from resnet_jax.models.analysis.summary import summarize

CONTESTANTS = {"ours": our_resnet, "flax": flax_resnet, "torch": torch_resnet}


class Case(NamedTuple):
    """A network, its images [side, side, channels], and the ratios to the peers that it must reach,
    if any.
    """

    name: str
    side: int
    channels: int
    batch: int
    num_classes: int
    steps: int
    least: dict[str, float | None]


CASES = (
    Case("resnet18", 28, 1, 64, 10, 8, {"flax": 3.0, "torch": 0.65}),
    Case("resnet50", 224, 3, 16, 1000, 1, {"flax": 1.8, "torch": 0.55}),
    Case("fashion_mnist_best", 28, 1, 128, 10, 4, {"flax": None, "torch": None}),
)


def measure(case: Case, rounds: int) -> dict:
    """Alternates the contestants over `rounds` rounds after a warm-up.

    Returns:
      Seconds to the end of the first step and its loss, contestant -> seconds a step of each round,
      the FLOP/s of a matmul just before, and the floating-point operations of training on an image.
    """
    matmul = measure_matmul()
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
    return {
        "first_step_seconds": first,
        "first_loss": losses,
        "rounds": played,
        "matmul_flops": matmul,
        "image_flops": image_flops(case),
    }


def image_flops(case: Case) -> int:
    """Floating-point operations of training on an image, those on padding among them."""
    return summarize(
        network(case.name, num_classes=case.num_classes), case.side, case.channels
    ).floor.flops


def summarise(case: Case, measured: dict) -> dict:
    """Medians of the speeds (images/s) and of the ratios, round by round, of our speed to each
    peer's.
    """
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
    versions = say_versions(host["versions"])
    rounds = len(results[0]["rounds"])
    lines = [
        "# Training on the CPU beside the peers",
        "",
        (
            f"`{command}` on {host['cores']} cores ({host['cpu']}), load {host['load_before']:.1f}"
            " before the run;"
        ),
        (
            f"{versions}; float32. Images/s of whole training steps (momentum SGD with weight"
            " decay), contestants"
        ),
        (
            f"alternating in one process that keeps its freed memory, medians over {rounds} rounds."
            " Ratios are the medians"
        ),
        (
            "of the rounds' own ratios, with their range. PyTorch is eager, in channels_last; Flax"
            " donates its state."
        ),
        "",
        (
            "| network | images | ours | stock Flax | PyTorch | ours / Flax | ours / PyTorch |"
            " first step (s) |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        speed, first = result["images_per_second"], result["first_step_seconds"]
        ratios = [
            f"{result['ratio'][peer]:.2f} ({low:.2f} to {high:.2f}{wanted(result['least'][peer])})"
            for peer, (low, high) in result["ratio_range"].items()
        ]
        size = f"{result['batch']} of {result['side']}x{result['side']}x{result['channels']}"
        speeds = " | ".join(f"{speed[peer]:.1f}" for peer in ("ours", "flax", "torch"))
        compiled = f"{first['ours']:.1f}, Flax {first['flax']:.1f}, PyTorch {first['torch']:.1f}"
        lines.append(
            f"| {result['name']} | {size} | {speeds} | {' | '.join(ratios)} | {compiled} |"
        )
    lines += [
        "",
        (
            "`fashion_mnist_best` is the network of that recipe. ResNet-18 at 28x28 ends in maps of"
            " 2x2 and 1x1, which"
        ),
        (
            "stock XLA runs badly and where most of PyTorch's products meet padding; the others"
            " have no map below 4x4."
        ),
        "",
        (
            "GFLOP/s, counted as in the papers (two a multiply-add, padding included; the stem"
            " needs no image gradient),"
        ),
        (
            "beside a float32 matmul of 2,048 just before. Dropping what only meets padding, and"
            " Winograd's algorithm,"
        ),
        "spare some of the counted operations.",
        "",
        "| network | GFLOP an image | ours | stock Flax | PyTorch | matmul |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        image, speed = result["image_flops"] / 1e9, result["images_per_second"]
        rates = " | ".join(f"{speed[peer] * image:.0f}" for peer in CONTESTANTS)
        lines.append(
            f"| {result['name']} | {image:.3f} | {rates} | {result['matmul_flops'] / 1e9:.0f} |"
        )
    return "\n".join(lines) + "\n"


def wanted(least: float | None) -> str:
    return "" if least is None else f"; at least {least:g} wanted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [case.name for case in CASES]
    parser.add_argument("--networks", nargs="+", default=known, choices=known)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--output", type=output_folder, help="folder for the tables; nothing is written without it"
    )
    arguments = parser.parse_args()
    keep_freed_memory()
    host = {**machine(), "torch_threads": torch.get_num_threads()}
    results = []
    for case in CASES:
        if case.name in arguments.networks:
            results.append(summarise(case, measure(case, arguments.rounds)))
    page = table(host, results, command_line(sys.argv))
    print(page)
    if arguments.output:
        (arguments.output / "cpu_training.md").write_text(page)
        record = json.dumps({"machine": host, "results": results}, indent=1)
        (arguments.output / "cpu_training.json").write_text(record + "\n")


if __name__ == "__main__":
    main()
