"""Whether starting from weights pays: half of Fashion-MNIST's classes, then 100 images of the others.

    python -m benchmarks.finetune --data=DIR --work=DIR   # writes results/finetune.md

A network is trained on all images of five classes. Given 20 labelled images of each of the other
five, three ways are compared on these classes' 5,000 test images: the same network from random
numbers, a linear probe (a new classifier on the frozen network) and fine-tuning (the probe first,
then all, the network at a tenth of the rate). Each way has its own learning rate and number of
epochs, chosen among the same ones by the same search on training images that are otherwise unused.
`--data` holds the published IDX files; a broken run goes on where it stopped.
"""

import argparse
import gzip
import itertools
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from resnet_jax import config as config_lib
from resnet_jax.commands.train import train

SEEDS = (0, 1, 2)
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
           "ankle boot")  # fmt: skip
# Both halves have clothes and shoes.
HALVES = {"known": (0, 2, 4, 5, 7), "new": (1, 3, 6, 8, 9)}
LABELLED = 20  # of each new class
HELD_OUT = 200  # of each new class, to choose rate and epochs by
SEARCH_SEED = 3
RATES = (0.06, 0.2)
EPOCHS = (40, 120)
KNOWN_EPOCHS = 3
WAYS = ("from random numbers", "linear probe", "fine-tuning")


def read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file of bytes, plain or .gz."""
    plain = path if path.exists() else path.with_name(f"{path.name}.gz")
    content = plain.read_bytes()
    content = gzip.decompress(content) if plain.suffix == ".gz" else content
    rank = content[3]
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


class Task:
    """Images of half of the classes, written as IDX files of a training and a test split."""

    def __init__(self, data: Path, half: str):
        self._classes = HALVES[half]
        self._pixels, self._rows, self._labels = {}, {}, {}
        for split in ("train", "t10k"):
            self._pixels[split] = read_idx(data / f"{split}-images-idx3-ubyte")
            self._labels[split] = read_idx(data / f"{split}-labels-idx1-ubyte")
            self._rows[split] = np.flatnonzero(np.isin(self._labels[split], self._classes))

    def write(self, folder: Path) -> Path:
        """Writes all images."""
        self._write(folder, "train", "train", self._rows["train"])
        self._write(folder, "t10k", "t10k", self._rows["t10k"])
        return folder

    def write_few(self, folder: Path, seed: int, *, is_search: bool = False) -> Path:
        """Writes `LABELLED` training images of each class, which the seed chooses.

        The test split is the test images, or in a search `HELD_OUT` training images of each class.
        """
        shuffled = np.random.default_rng(seed).permutation(self._rows["train"])
        labels = self._labels["train"][shuffled]
        of_class = [shuffled[labels == label] for label in self._classes]
        self._write(
            folder, "train", "train", np.concatenate([rows[:LABELLED] for rows in of_class])
        )
        if is_search:
            others = [rows[LABELLED : LABELLED + HELD_OUT] for rows in of_class]
            self._write(folder, "t10k", "train", np.concatenate(others))
        else:
            self._write(folder, "t10k", "t10k", self._rows["t10k"])
        return folder

    def _write(self, folder: Path, split: str, source: str, rows: np.ndarray) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_idx(folder / f"{split}-images-idx3-ubyte", self._pixels[source][rows])
        renamed = np.searchsorted(self._classes, self._labels[source][rows])
        write_idx(folder / f"{split}-labels-idx1-ubyte", renamed)


def base_recipe(data: Path, rate: float, epochs: float, batch_size: int, seed: int):
    config = config_lib.defaults()
    config.seed, config.num_epochs, config.batch_size = seed, epochs, batch_size
    config.eval_batch_size, config.eval_every_epochs = 500, epochs
    config.model.name, config.model.stem, config.model.stem_pool = "resnet18", "small", "max"
    config.model.stage_sizes, config.model.width = (1, 1, 1), 16
    config.data.name, config.data.dir = "idx", str(data)
    config.data.mean, config.data.std = (0.286,), (0.353,)
    config.data.pad_and_crop, config.data.flip = 2, True
    config.optimizer.nesterov, config.optimizer.weight_decay = True, 5e-4
    config.schedule.name, config.schedule.base_batch_size = "cosine", None
    config.schedule.base_lr, config.schedule.warmup_epochs = rate, epochs / 10
    return config


def recipe_of(way: str, data: Path, parent: Path, rate: float, epochs: float, seed: int):
    """Returns the recipe of a way to learn the new classes."""
    config = base_recipe(data, rate, epochs, 20, seed)
    if way == "from random numbers":
        return config
    config.init.weights, config.init.head = str(parent), "fresh"
    config.optimizer.freeze = ("all but fc",)
    if way == "fine-tuning":
        config.optimizer.freeze_epochs = epochs / 4
        config.optimizer.rates = ("all but fc=0.1",)
    return config


def run(config, workdir: Path) -> float:
    """Trains, unless that is done, and returns the last top-1."""
    config_lib.validate(config)
    train(config, str(workdir))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["top1"] for line in lines if line["split"] == "test"][-1]


def measure(data: Path, work: Path) -> tuple[dict, dict]:
    """Returns (way, rate, epochs) -> top-1 of the held-out images, and (what, seed) -> of the test's."""
    known, new = Task(data, "known").write(work / "known"), Task(data, "new")
    scores = {
        ("known", seed): run(
            base_recipe(known, 0.1, KNOWN_EPOCHS, 128, seed), work / f"known{seed}"
        )
        for seed in SEEDS
    }
    few = new.write_few(work / "search", SEARCH_SEED, is_search=True)
    search = {}
    for number, tried in enumerate(itertools.product(WAYS, RATES, EPOCHS)):
        config = recipe_of(tried[0], few, work / "known0", *tried[1:], SEARCH_SEED)
        search[tried] = run(config, work / f"search{number}")
    for seed in SEEDS:
        few = new.write_few(work / f"few{seed}", seed)
        for number, way in enumerate(WAYS):
            config = recipe_of(way, few, work / f"known{seed}", *chosen(search, way), seed)
            scores[way, seed] = run(config, work / f"way{number}_{seed}")
    return search, scores


def chosen(search: dict, way: str) -> tuple[float, int]:
    """Returns the rate and the epochs with which a way does best on the held-out images."""
    (_, rate, epochs) = max((tried for tried in search if tried[0] == way), key=search.get)
    return rate, epochs


def verdict(scores: dict) -> str:
    """Says in which seeds fine-tuning beats the other ways, and by how much on average."""
    parts = []
    for way in WAYS[:2]:
        gains = [scores["fine-tuning", seed] - scores[way, seed] for seed in SEEDS]
        wins = sum(gain > 0 for gain in gains)
        beaten = "training from random numbers" if way == WAYS[0] else "the linear probe"
        parts.append(
            f"{beaten} with {wins} of {len(SEEDS)} seeds, by {np.mean(gains):+.4f} on average"
        )
    return f"Fine-tuning beats {', and '.join(parts)}."


def page(search: dict, scores: dict) -> str:
    """Returns results/finetune.md."""
    rows = []
    for what in ("known", *WAYS):
        values = [scores[what, seed] for seed in SEEDS]
        name = "the first five classes, all images" if what == "known" else what
        cells = " | ".join(f"{value:.4f}" for value in values)
        rows.append(f"| {name} | {cells} | {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} |")
    settings = list(itertools.product(RATES, EPOCHS))
    tried = []
    for way in WAYS:
        cells = [f"{search[way, *setting]:.3f}" for setting in settings]
        best = settings.index(chosen(search, way))
        cells[best] = f"**{cells[best]}**"
        tried.append(f"| {way} | {' | '.join(cells)} |")
    known, new = (", ".join(CLASSES[label] for label in HALVES[half]) for half in HALVES)
    return _PAGE.format(
        known=known,
        new=new,
        known_epochs=KNOWN_EPOCHS,
        labelled=LABELLED,
        total=LABELLED * len(HALVES["new"]),
        held_out=HELD_OUT * len(HALVES["new"]),
        seeds=" | ".join(f"seed {seed}" for seed in SEEDS),
        rows="\n".join(rows),
        rules="--:|" * (len(SEEDS) + 1),
        verdict=verdict(scores),
        settings=" | ".join(f"{rate:g}, {epochs}" for rate, epochs in settings),
        search_rules="--:|" * len(settings),
        tried="\n".join(tried),
    )


_PAGE = """# Fine-tuning

`python -m benchmarks.finetune --data=DIR --work=DIR` trains all of this and writes the page.

A ResNet-8 of width 16 is trained for {known_epochs} epochs on the 30,000 images of five of Fashion-MNIST's classes
({known}). Then it is given {labelled} labelled images of each of the other five
({new}), {total} in all. Top-1 of the 5,000 test images of the classes trained on, after the last epoch; a seed chooses the {total} images too.

| trained | {seeds} | mean ± deviation |
|---|{rules}
{rows}

{verdict}

Which classes come first matters. An earlier comparison, with T-shirt, pullover, coat, shirt and bag first and
without the search below, was a tie; its logs are not kept.

The linear probe trains a new classifier on the frozen network. Fine-tuning begins as the probe does, for a quarter of
the epochs, and goes on with the whole network at a tenth of the classifier's rate. All train in batches of 20, with the
same augmentation (shifts by up to 2 pixels, mirroring) and a cosine schedule.

## How rate and epochs were chosen

Every way had the same search: {total} images of the new classes to train on, drawn by a seed of its own, and {held_out}
others of the training images to score by. The best of each row was taken for the table above; no test image had a part in it.

| peak rate, epochs | {settings} |
|---|{search_rules}
{tried}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="Fashion-MNIST's IDX files")
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    search, scores = measure(options.data, options.work)
    options.output.joinpath("finetune.md").write_text(page(search, scores))


if __name__ == "__main__":
    main()
