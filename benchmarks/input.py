"""Images a second that the input pipeline makes, beside Pillow, grain and tf.data on one CPU.

    python -m benchmarks.input --tensorflow_python=PYTHON --output=results

PYTHON is an interpreter of an environment that has TensorFlow; without it tf.data is left out.
"""

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
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

FILES, IMAGES, BATCH = 200, 2560, 64  # different files; images of a turn
TREE = (1000, 1281)  # folders, and files in each: ImageNet's training tree
# What recipes do to an image on the host: their name, image size, fields of `data`.
TRIVIAL = {"policy": "trivialaugment_wide"}
RAND = {"policy": "randaugment", "policy_mstd": 0.5, "policy_inc": True}
METHODS = (
    ("torchvision's 80.86: TrivialAugment, repeats 4", 176, TRIVIAL | {"repeats": 4}),
    ("the same without repeats", 176, TRIVIAL),
    ("RSB A1: RandAugment 7, repeats 3", 224, RAND | {"policy_m": 7.0, "repeats": 3}),
    ("the same without repeats", 224, RAND | {"policy_m": 7.0}),
    ("RSB A3: RandAugment 6", 160, RAND | {"policy_m": 6.0}),
    ("AutoAugment", 224, {"policy": "autoaugment"}),
    ("colour jitter 0.4, hue 0.1", 224, {"color_jitter": (0.4, 0.4, 0.4, 0.1)}),
)
SETS = (((28, 28, 1), 50_000, 512), ((32, 32, 3), 50_000, 512), ((4, 4, 1), 1_281_167, 256))


def photographs(root: Path, count: int) -> list[str]:
    """Writes JPEGs of about 500x375 as a folder tree and returns the paths of its train split."""
    rng, photos, paths = np.random.default_rng(0), load_sample_images().images, []
    for number in range(count):
        photo, size = photos[number % len(photos)], np.array((375, 500)) + rng.integers(-20, 20, 2)
        top, left = rng.integers(np.array(photo.shape[:2]) - size + 1)
        part, file = photo[top : top + size[0], left : left + size[1]], io.BytesIO()
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


def ours(threads: int, name: str, directory: Path, **changes) -> Callable[[int], None]:
    """Returns a function that makes so many images with our loader."""
    config = settings(num_threads=threads, name=name, dir=str(directory), **changes)
    source = data.open_source(config, True)
    loader = data.Loader(source, config, batch_size=BATCH, seed=0, train=True)

    def run(images: int) -> None:
        with data.Prefetcher(loader, 0, images // BATCH, lambda batch: batch) as batches:
            for _ in batches:
                pass

    return run


def contestants(root: Path, threads: int) -> dict[str, Callable[[int], None]]:
    """Returns who decodes files under `root`, written now: functions of a number of images."""
    paths, tree = photographs(root / "tree", FILES), root / "tree"
    (root / "paths.txt").write_text("\n".join(paths))
    for name, side in (("whole", None), ("shrunk", 256)):
        splits = {"train": data.open_source(settings(name="folder", dir=str(tree)), True)}
        prepare(splits, root / name, short_side=side, quality=90, shard_examples=50)
    return {
        "Pillow": peers.pillow(paths, threads, BATCH),
        "ours, files": ours(threads, "folder", tree),
        "ours, files, 1 thread": ours(1, "folder", tree),
        "ours, shards": ours(threads, "shards", root / "whole"),
        "ours, shards at 256": ours(threads, "shards", root / "shrunk"),
        "grain round our decoder": peers.grain(paths, threads, BATCH),
    }


RIVALS = {"times Pillow": lambda name: "Pillow", "times tf.data": lambda name: "tf.data"}


def measure(
    runs: dict[str, Callable],
    images: int,
    rounds: int,
    rivals: dict[str, Callable[[str], str]] = RIVALS,
) -> list[pages.Row]:
    """Lets all take turns, of which the first does not count, and returns a row for each.

    A contestant in a process of its own returns its "seconds", and the "work" of its processors.
    Of each column of `rivals` a contestant is held against the one whose name the function gives.
    """
    work: dict[str, list[float]] = {name: [] for name in runs}

    def turn(name: str) -> float:
        began, worked = time.perf_counter(), time.process_time()
        own = runs[name](images)
        seconds, busy = time.perf_counter() - began, time.process_time() - worked
        work[name].append(own["work"] if own else busy)
        return own["seconds"] if own else seconds

    played, _ = alternate({name: partial(turn, name) for name in runs}, rounds + 1)
    return [
        {
            "pipeline": name,
            "images/s": speed(played[1:], name, images),
            **{column: ratio(played[1:], name, rival(name)) for column, rival in rivals.items()},
            "processor ms an image": 1e3 * statistics.median(work[name][1:]) / images,
        }
        for name in runs
    ]


def method_rows(tree: Path, threads: int, images: int, rounds: int) -> list[pages.Row]:
    """Returns the rows of `METHODS`, each beside the plain pipeline at its size."""
    cases = {f"plain, {size}": (size, {}) for _, size, _ in METHODS}
    cases |= {f"{name}, {size}": (size, changes) for name, size, changes in METHODS}
    runs = {
        name: ours(threads, "folder", tree, image_size=size, **changes)
        for name, (size, changes) in cases.items()
    }
    return measure(runs, images, rounds, {"times plain": lambda name: f"plain, {cases[name][0]}"})


def memory_row(shape: tuple[int, int, int], count: int, batch: int, rounds: int) -> pages.Row:
    """Returns the row of a set in memory: the batches of one thread, and the start of an epoch."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    source = data.ArraySource("memory", "train", ("a",), images, np.zeros(count, int), lambda: None)
    loader = data.Loader(source, settings(), batch_size=batch, seed=0, train=True)
    first, middle = len(loader), len(loader) + len(loader) // 2
    kinds = {"batches": range(50), "first": [first], "middle": [middle]}
    made = {kind: partial(lambda n: [*map(loader.__getitem__, n)], n) for kind, n in kinds.items()}
    turns = {kind: partial(seconds_of, make) for kind, make in made.items()}
    played, _ = alternate(turns, 4 * rounds)
    return {
        "images": f"{count:,} of {'x'.join(map(str, shape))}, batch {batch}",
        "images/s": speed(played, "batches", 50 * batch),
        "first batch of an epoch (ms)": Range.of([1e3 * each["first"] for each in played]),
        "one in its middle (ms)": Range.of([1e3 * each["middle"] for each in played]),
    }


OPEN_TREE = """
import json, sys, time
from resnet_jax import config, data

def memory(line):
    (line,) = [words for words in open("/proc/self/status") if words.startswith(line)]
    return int(line.split()[1]) / 1024  # MiB

fields = config.defaults().data
fields.name, fields.dir = "folder", sys.argv[1]
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again at what is held now
before, began = memory("VmRSS"), time.perf_counter()
data.fingerprint(data.open_source(fields, train=True))
print(json.dumps([time.perf_counter() - began, memory("VmHWM") - before]))
"""


def make_tree(root: Path, folders: int, files: int) -> None:
    """Makes a training tree of empty files; of ImageNet's size in about 15 s."""
    for label in range(folders):
        folder = root / "train" / f"n{label:08d}"
        folder.mkdir(parents=True)
        directory = os.open(folder, os.O_RDONLY)
        for number in range(files):
            name = f"{folder.name}_{number * 7919 % 100_003}.JPEG"  # not in the order of names
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory))
        os.close(directory)


def tree_row(root: Path, folders: int, files: int, rounds: int) -> pages.Row:
    """Returns the row of opening a tree and taking its fingerprint, each in a process of its own."""
    make_tree(root, folders, files)
    command = [sys.executable, "-c", OPEN_TREE, str(root)]
    found = [json.loads(subprocess.check_output(command, cwd=ROOT)) for _ in range(rounds)]
    seconds, mebibytes = zip(*found, strict=True)
    return {
        "tree": f"{folders * files:,} files in {folders:,} folders",
        "opened, with fingerprint (s)": Range.of(seconds),
        "memory on top (MiB)": Range.of(mebibytes),
    }


def main() -> None:
    parser = pages.parser(__doc__, rounds=5)
    parser.add_argument("--tensorflow_python", help="an interpreter that has TensorFlow")
    parser.add_argument("--threads", type=int, default=cores())
    arguments = parser.parse_args()
    packages = ("numpy", "pillow", "simplejpeg", "grain")
    result = pages.record("input", "Input pipeline: images a second", "input", *packages)
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        runs = contestants(Path(root), arguments.threads)
        if python := arguments.tensorflow_python:
            script = str(ROOT / "benchmarks" / "peers" / "tfdata.py")
            command = [python, script, f"{root}/paths.txt"]
            worker = Worker(command, {"PYTHONPATH": ""}, 120.0)
            stack.callback(worker.close)
            runs["tf.data"] = lambda images: worker.ask(600.0, images=images)
        rows = measure(runs, IMAGES, arguments.rounds)
        methods = method_rows(Path(root) / "tree", arguments.threads, IMAGES, arguments.rounds)
    in_memory = [memory_row(*fields, arguments.rounds) for fields in SETS]
    with tempfile.TemporaryDirectory() as root:
        tree = tree_row(Path(root), *TREE, arguments.rounds)
    result["tables"] = {
        "JPEG files": rows,
        "The same files, with what recipes do to an image": methods,
        "Sets in memory, one thread": in_memory,
        "A folder tree of ImageNet's size": [tree],
    }
    pages.save(result, arguments.output)


if __name__ == "__main__":
    main()
