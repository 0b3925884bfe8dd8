"""Images a second that the input pipeline makes, beside Pillow, grain and tf.data on one CPU.

    python -m benchmarks.input --tensorflow_python=PYTHON --output=results

PYTHON is an interpreter of an environment that has TensorFlow; without it tf.data is left out.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks import pages
from benchmarks.harness import ROOT, Range, Worker, alternate, ratio, seconds_of, speed
from benchmarks.peers import images as peers
from resnet_jax import data
from resnet_jax.data.images.decode import cores
from resnet_jax.data.prepare import prepare

BATCH = 64
SETS = (
    ((28, 28, 1), 50_000, 512),
    ((32, 32, 3), 50_000, 512),
    ((4, 4, 1), 1_281_167, 256),  # as long as ImageNet
)


def photographs(root: Path, count: int) -> list[str]:
    """Writes JPEGs of about 500x375 as a folder tree and returns the paths of its train split."""
    rng, photos, paths = np.random.default_rng(0), load_sample_images().images, []
    for number in range(count):
        size = np.array((375, 500)) + rng.integers(-20, 20, 2)
        photo = photos[number % len(photos)]
        top, left = rng.integers(np.array(photo.shape[:2]) - size + 1)
        file = io.BytesIO()
        part = photo[top : top + size[0], left : left + size[1]]
        Image.fromarray(part).save(file, "JPEG", quality=90 + number % 6)
        for split in ("val", "train"):
            path = root / split / str(number % 10) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
        paths.append(str(path))
    return paths


def settings(**changes) -> ConfigDict:
    fields = {name: field.default for name, field in data.FIELDS.items()}
    return ConfigDict(fields | changes, type_safe=False)


def ours(threads: int, **changes) -> Callable[[int], None]:
    """Returns a function that makes so many images with our loader."""
    config = settings(num_threads=threads, **changes)
    source = data.open_source(config, True, 0)
    loader = data.Loader(source, config, batch_size=BATCH, seed=0, train=True)

    def run(images: int) -> None:
        with data.Prefetcher(loader, 0, images // BATCH, lambda batch: batch) as batches:
            for _ in batches:
                pass

    return run


def in_memory(shape: tuple[int, int, int], count: int, batch_size: int) -> data.Loader:
    """Returns a loader of random images that lie in memory."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    source = data.ArraySource("memory", "train", ("a",), images, np.zeros(count, int), lambda: None)
    return data.Loader(source, settings(), batch_size=batch_size, seed=0, train=True)


def contestants(
    root: Path, arguments: argparse.Namespace, stack: contextlib.ExitStack
) -> dict[str, Callable]:
    """Returns who decodes: functions of a number of images, some with times of their own."""
    paths, threads = photographs(root / "tree", arguments.files), arguments.threads
    tree = {"name": "folder", "dir": str(root / "tree")}
    for name, side in (("whole", None), ("shrunk", 256)):
        splits = {"train": data.open_source(settings(**tree), True, 0)}
        prepare(splits, root / name, short_side=side, quality=90, shard_examples=50)
    found = {
        "Pillow": peers.pillow(paths, threads, BATCH),
        "ours, files": ours(threads, **tree),
        "ours, files, 1 thread": ours(1, **tree),
        "ours, shards": ours(threads, name="shards", dir=str(root / "whole")),
        "ours, shards at 256": ours(threads, name="shards", dir=str(root / "shrunk")),
        "grain round our decoder": peers.grain(paths, threads, BATCH),
    }
    if arguments.tensorflow_python:
        listing = root / "paths.txt"
        listing.write_text("\n".join(paths))
        script = ROOT / "benchmarks" / "peers" / "tfdata.py"
        command = [arguments.tensorflow_python, str(script), str(listing), str(threads)]
        worker = Worker(command, {"PYTHONPATH": ""}, 120.0)
        stack.callback(worker.close)
        found["tf.data"] = lambda images: worker.ask(600.0, images=images)
    return found


def measure(runs: dict[str, Callable], images: int, rounds: int) -> list[pages.Row]:
    """Lets all take turns, of which the first does not count, and returns a row for each."""
    work: dict[str, list[float]] = {name: [] for name in runs}

    def turn(name: str) -> float:
        began, worked = time.perf_counter(), time.process_time()
        times = runs[name](images) or {
            "seconds": time.perf_counter() - began,
            "work": time.process_time() - worked,
        }
        work[name].append(times["work"])
        return times["seconds"]

    played, _ = alternate({name: partial(turn, name) for name in runs}, rounds + 1)
    played = played[1:]
    return [
        {
            "pipeline": name,
            "images/s": speed(played, name, images),
            "times Pillow": ratio(played, name, "Pillow"),
            "times tf.data": ratio(played, name, "tf.data"),
            "processor ms an image": 1e3 * statistics.median(work[name][1:]) / images,
        }
        for name in runs
    ]


def memory_row(shape: tuple[int, int, int], count: int, batch: int, rounds: int) -> pages.Row:
    """Returns the row of a set in memory: the batches of one thread, and the start of an epoch."""
    loader = in_memory(shape, count, batch)
    turns = {
        kind: partial(seconds_of, partial(lambda numbers: [loader[n] for n in numbers], numbers))
        for kind, numbers in {
            "batches": range(50),
            "first": [len(loader)],
            "middle": [len(loader) + len(loader) // 2],
        }.items()
    }
    played, _ = alternate(turns, 4 * rounds)
    return {
        "images": f"{count:,} of {'x'.join(map(str, shape))}, batch {batch}",
        "images/s": speed(played, "batches", 50 * batch),
        "first batch of an epoch (ms)": Range.of([1e3 * each["first"] for each in played]),
        "one in its middle (ms)": Range.of([1e3 * each["middle"] for each in played]),
    }


def main() -> None:
    parser = pages.parser(__doc__, rounds=5)
    parser.add_argument("--tensorflow_python", help="an interpreter that has TensorFlow")
    parser.add_argument("--files", type=int, default=200, help="different JPEG files")
    parser.add_argument(
        "--images", type=int, default=2560, help=f"of a turn, in batches of {BATCH}"
    )
    parser.add_argument("--threads", type=int, default=cores())
    arguments = parser.parse_args()
    packages = ("numpy", "pillow", "simplejpeg", "grain")
    result = pages.record("input", "Input pipeline: images a second", "input", *packages)
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        runs = contestants(Path(root), arguments, stack)
        rows = measure(runs, arguments.images // BATCH * BATCH, arguments.rounds)
    result["tables"]["JPEG files"] = rows
    result["tables"]["Sets in memory, one thread"] = [
        memory_row(*fields, arguments.rounds) for fields in SETS
    ]
    pages.save(result, arguments.output)


if __name__ == "__main__":
    main()
