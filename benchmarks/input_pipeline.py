"""How many images a second the input pipeline makes, beside Pillow's, grain's and tf.data's on the
same files.

    python -m benchmarks.input_pipeline --tensorflow_python PYTHON --output results

PYTHON is an interpreter of an environment that has TensorFlow; without it tf.data is left out. With
--output it writes input_pipeline.md there. All contenders take turns; what is reported is the
median over the rounds, of the speeds and of their ratios.
"""

import argparse
import contextlib
import io
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks import input_peers
from benchmarks.contest import Ratio, machine, output_folder, say_versions
from benchmarks.run_logs import command_line
from resnet_jax import data
from resnet_jax.data.images.decode import cores
from resnet_jax.data.prepare import prepare

BATCH = 64


def main() -> None:
    arguments, host = parsed(), machine(("numpy", "pillow", "simplejpeg", "grain"))
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        paths = photographs(pathlib.Path(root), arguments.files)
        contenders = everyone(pathlib.Path(root), paths, arguments, stack)
        rates, work = rounds(contenders, arguments.images, arguments.rounds)
    rates |= in_memory(arguments.rounds)
    report = table(rates, work, arguments, host) + epoch_start() + memory(arguments.batches)
    print(report)
    if arguments.output:
        (arguments.output / "input_pipeline.md").write_text(report)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensorflow_python", help="an interpreter that has TensorFlow")
    parser.add_argument("--files", type=int, default=200, help="different JPEG files")
    parser.add_argument(
        "--images",
        type=int,
        default=2560,
        help=f"images a contender makes in one round, whole batches of {BATCH}",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10_000, help="batches of the memory test")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument(
        "--output", type=output_folder, help="folder for the table; nothing is written without it"
    )
    arguments = parser.parse_args()
    if arguments.images % BATCH:
        parser.error(f"--images={arguments.images}: must be divisible by {BATCH}")
    return arguments


def photographs(root: pathlib.Path, count: int) -> list[str]:
    """Writes JPEGs of about 500x375 at quality 90 to 95 as a folder tree and returns their
    paths.
    """
    draws, photos, paths = np.random.default_rng(0), load_sample_images().images, []
    for number in range(count):
        height, width = 375 + int(draws.integers(-20, 20)), 500 + int(draws.integers(-20, 20))
        photo = photos[number % len(photos)]
        top, left = (
            int(draws.integers(extent - side + 1))
            for extent, side in zip(photo.shape[:2], (height, width), strict=True)
        )
        for split in ("train", "val"):
            path = root / "tree" / split / str(number % 10) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = io.BytesIO()
            Image.fromarray(photo[top : top + height, left : left + width]).save(
                file, "JPEG", quality=90 + number % 6
            )
            path.write_bytes(file.getvalue())
        paths.append(str(root / "tree" / "train" / str(number % 10) / f"{number}.jpg"))
    return paths


def settings(**changes) -> ConfigDict:
    config = ConfigDict(
        {name: field.default for name, field in data.FIELDS.items()}, type_safe=False
    )
    config.update(changes)
    return config


def ours(threads: int, **changes) -> Callable[[int], None]:
    config = settings(num_threads=threads, **changes)
    loader = data.Loader(
        data.open_source(config, True, 0), config, batch_size=BATCH, seed=0, train=True
    )

    def run(images: int) -> None:
        with data.Prefetcher(loader, 0, images // BATCH, lambda batch: batch) as feed:
            for _ in feed:
                pass

    return run


def everyone(
    root: pathlib.Path, paths: list[str], arguments: argparse.Namespace, stack: contextlib.ExitStack
) -> dict[str, Callable[[int], None]]:
    tree, threads = {"name": "folder", "dir": str(root / "tree")}, arguments.threads
    for name, short_side in (("whole", None), ("shrunk", 256)):
        source = data.open_source(settings(**tree), True, 0)
        prepare(
            {"train": source}, root / name, short_side=short_side, quality=90, shard_examples=50
        )
    contenders = {
        "Pillow": input_peers.pillow(paths, threads),
        "resnet_jax, files": ours(threads, **tree),
        "resnet_jax, files, 1 thread": ours(1, **tree),
        "resnet_jax, shards": ours(threads, name="shards", dir=str(root / "whole")),
        "resnet_jax, shards at 256": ours(threads, name="shards", dir=str(root / "shrunk")),
        "grain round our decoder": input_peers.grain(paths, threads, BATCH),
    }
    if arguments.tensorflow_python:
        listing = root / "paths.txt"
        listing.write_text("\n".join(paths))
        contenders["tf.data"] = tensorflow(arguments.tensorflow_python, listing, threads, stack)
    return contenders


def tensorflow(
    python: str, listing: pathlib.Path, threads: int, stack: contextlib.ExitStack
) -> Callable[[int], tuple[float, float]]:
    script = str(pathlib.Path(__file__).parent / "input_tfdata.py")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    process = stack.enter_context(
        subprocess.Popen(
            [python, script, str(listing), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
    )
    stack.callback(process.stdin.close)

    def run(images: int) -> tuple[float, float]:
        process.stdin.write(f"{images}\n")
        process.stdin.flush()
        seconds, worked = map(float, process.stdout.readline().split())
        return seconds, worked

    return run


def rounds(
    contenders: dict[str, Callable], images: int, count: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Runs all in turn; the first, warming round does not count.

    Returns:
      (images a second of each contender in each round, the median of its processor milliseconds an
      image).
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    work: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(count + 1):
        for name, run in contenders.items():
            began, worked = time.perf_counter(), time.process_time()
            elsewhere = run(images)
            seconds, busy = elsewhere or (time.perf_counter() - began, time.process_time() - worked)
            if number:
                rates[name].append(images / seconds)
                work[name].append(1e3 * busy / images)
    return rates, {name: statistics.median(found) for name, found in work.items()}


def in_memory(count: int) -> dict[str, list[float]]:
    """Measures batches of sets that sit in memory, made by one thread."""
    rates = {}
    draws = np.random.default_rng(0)
    for shape in ((28, 28, 1), (32, 32, 3)):
        images = draws.integers(0, 256, (50_000, *shape), np.uint8)
        source = data.ArraySource(
            "memory", "train", ("a",), images, np.zeros(50_000, int), lambda: None
        )
        loader = data.Loader(source, settings(), batch_size=512, seed=0, train=True)
        name = "resnet_jax, {}x{}x{} in memory, batch 512, 1 core".format(*shape)
        rates[name] = []
        for _ in range(count):
            began = time.perf_counter()
            for number in range(300):
                loader[number]
            rates[name].append(300 * 512 / (time.perf_counter() - began))
    return rates


def table(
    rates: dict[str, list[float]],
    work: dict[str, float],
    arguments: argparse.Namespace,
    host: dict[str, Any],
) -> str:
    versions = say_versions(host["versions"])
    lines = [
        "# Input pipeline: images per second",
        "",
        f"`{command_line(sys.argv)}` on {host['cores']} cores ({host['cpu']}), load",
        f"{host['load_before']:.1f} before the run; {versions}; {arguments.threads} threads.",
        (
            f"{arguments.files} JPEG files of about 500x375, random-resized crop to 224 and flip,"
            f" {arguments.images:,}"
        ),
        (
            f"images a turn, medians of {arguments.rounds} rounds taken in turn; ratios are the"
            " medians of the rounds'"
        ),
        "own, with their range. Ours flips on the device.",
        "",
        (
            "| pipeline | images/s | lowest to highest | times Pillow | times tf.data | processor"
            " ms an image |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for name, found in rates.items():
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        peers = [rates.get(peer) if name in work else None for peer in ("Pillow", "tf.data")]
        ratios = [
            "{:.2f} ({:.2f} to {:.2f})".format(*times(found, peer)) if peer else ""
            for peer in peers
        ]
        busy = f"{work[name]:.2f}" if name in work else ""
        lines.append(
            f"| {name} | {statistics.median(found):,.0f} | {spread} | {' | '.join(ratios)} |"
            f" {busy} |"
        )
    scaling = times(*(rates[f"resnet_jax, files{of}"] for of in ("", ", 1 thread")))
    lines += ["", f"From 1 to {arguments.threads} threads: {scaling.median:.2f} times.", ""]
    return "\n".join(lines)


def times(ours: list[float], theirs: list[float]) -> Ratio:
    """Returns the rounds' ratios, which what slows a whole round leaves alone."""
    return Ratio.of([one / other for one, other in zip(ours, theirs, strict=True)])


def epoch_start() -> str:
    """Compares the first batch of an epoch with one in its middle, for a set of ImageNet's
    length.
    """
    source = data.ArraySource("memory", "train", ("a",), *_long(), lambda: None)
    loader = data.Loader(source, settings(), batch_size=256, seed=0, train=True)
    seconds = {"first": [], "middle": []}
    for epoch in range(50):
        for kind, number in (
            ("first", epoch * len(loader)),
            ("middle", epoch * len(loader) + 2000),
        ):
            began = time.perf_counter()
            loader[number]
            seconds[kind].append(time.perf_counter() - began)
    first, middle = (1e3 * statistics.median(seconds[kind]) for kind in ("first", "middle"))
    return (
        f"\nFirst batch of an epoch of 1,281,167 examples: {first:.2f} ms; one in the middle:"
        f" {middle:.2f} ms.\n"
    )


def _long() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((1_281_167, 4, 4, 1), np.uint8), np.zeros(1_281_167, int)


def memory(batches: int) -> str:
    """Decodes many small batches and reports the resident memory early and at the end."""
    with tempfile.TemporaryDirectory() as root:
        photographs(pathlib.Path(root), 20)
        config = settings(name="folder", dir=str(pathlib.Path(root) / "tree"), image_size=32)
        loader = data.Loader(
            data.open_source(config, True, 0), config, batch_size=4, seed=0, train=True
        )
        resident = []
        with data.Prefetcher(loader, 0, batches, lambda batch: batch) as feed:
            for number, _ in feed:
                if number in (batches // 10, batches - 1):
                    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
                    resident.append(pages * resource.getpagesize() / 2**20)
    early, late = resident
    return (
        f"\nResident memory: {early:.0f} MiB after {batches // 10:,} batches, {late:.0f} MiB after"
        f" {batches:,}.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
