"""Whether starting from weights pays: half of Fashion-MNIST's classes, then 100 images of the others.

    python -m benchmarks.finetune --data=DIR --work=DIR   # writes results/finetune.md

A network is trained on the 30,000 images of five classes. Given 20 labelled images of each of the
other five, three ways are compared on these classes' 5,000 test images: the same network from
random numbers, a linear probe (a new classifier on the frozen network) and fine-tuning (the probe
first, then all at a tenth of the rate). `--data` holds the published IDX files.
"""

import argparse
import gzip
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from resnet_jax import config as config_lib
from resnet_jax.commands.train import train

SEEDS = (0, 1, 2)
# The classes alternate, so that both halves have clothes, shoes and bags as far as they go.
HALVES = {"known": (0, 2, 4, 6, 8), "new": (1, 3, 5, 7, 9)}
LABELLED = 20  # of each new class
EPOCHS = {"known": 4, "new": 40}
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


def write_half(data: Path, folder: Path, half: str, seed: int | None = None) -> Path:
    """Writes the images of five classes; with a seed, `LABELLED` training images of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "t10k"):
        images = read_idx(data / f"{split}-images-idx3-ubyte")
        labels = read_idx(data / f"{split}-labels-idx1-ubyte")
        chosen = np.flatnonzero(np.isin(labels, HALVES[half]))
        if seed is not None and split == "train":
            order = np.random.default_rng(seed).permutation(chosen)
            chosen = np.concatenate(
                [order[labels[order] == label][:LABELLED] for label in HALVES[half]]
            )
        write_idx(folder / f"{split}-images-idx3-ubyte", images[chosen])
        renamed = np.searchsorted(HALVES[half], labels[chosen])
        write_idx(folder / f"{split}-labels-idx1-ubyte", renamed)
    return folder


def base_recipe(data: Path, epochs: float, batch_size: int, seed: int):
    config = config_lib.defaults()
    config.seed, config.num_epochs, config.batch_size = seed, epochs, batch_size
    config.eval_batch_size, config.eval_every_epochs = 500, epochs
    config.model.name, config.model.stem, config.model.stem_pool = "resnet18", "small", "max"
    config.model.stage_sizes, config.model.width = (1, 1, 1), 32
    config.data.name, config.data.dir = "idx", str(data)
    config.data.pad_and_crop, config.data.flip = 2, True
    config.optimizer.nesterov, config.optimizer.weight_decay = True, 5e-4
    config.schedule.name, config.schedule.base_batch_size = "cosine", None
    config.schedule.base_lr, config.schedule.warmup_epochs = 0.1, epochs / 10
    return config


def recipe_of(way: str, data: Path, parent: Path, seed: int):
    """Returns the recipe of a way to learn the new classes."""
    config = base_recipe(data, EPOCHS["new"], 20, seed)
    config.schedule.base_lr = 0.02
    if way == "from random numbers":
        return config
    config.init.weights, config.init.head = str(parent), "fresh"
    config.optimizer.freeze = ("all but fc",)
    if way == "fine-tuning":
        config.optimizer.freeze_epochs = EPOCHS["new"] / 4
        config.optimizer.rates = ("all but fc=0.1",)
    return config


def run(config, workdir: Path) -> float:
    """Trains, unless that is done, and returns the last top-1."""
    config_lib.validate(config)
    train(config, str(workdir))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["top1"] for line in lines if line["split"] == "test"][-1]


def measure(data: Path, work: Path) -> Iterator[tuple[int, str, float]]:
    """Yields (seed, what, top-1)."""
    known = write_half(data, work / "known", "known")
    for seed in SEEDS:
        parent = work / f"parent{seed}"
        yield seed, "known", run(base_recipe(known, EPOCHS["known"], 128, seed), parent)
        new = write_half(data, work / f"new{seed}", "new", seed)
        for way in WAYS:
            config = recipe_of(way, new, parent, seed)
            yield seed, way, run(config, work / f"{way.replace(' ', '_')}{seed}")


def page(scores: list[tuple[int, str, float]]) -> str:
    """Returns results/finetune.md."""
    top1 = {(what, seed): score for seed, what, score in scores}
    rows = []
    for what in ("known", *WAYS):
        values = [top1[what, seed] for seed in SEEDS]
        name = "the first five classes, all images" if what == "known" else what
        cells = " | ".join(f"{value:.4f}" for value in values)
        rows.append(f"| {name} | {cells} | {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} |")
    return "\n".join(
        [
            "# Fine-tuning",
            "",
            "`python -m benchmarks.finetune --data=DIR --work=DIR` trains all of this and writes the page.",
            "",
            "A ResNet-8 is trained on the 30,000 images of five of Fashion-MNIST's classes "
            f"({EPOCHS['known']} epochs). Then it is given {LABELLED} labelled images of each of the other "
            f"five, {LABELLED * 5} in all, for {EPOCHS['new']} epochs. Top-1 of the 5,000 test images of the "
            "classes trained on, after the last epoch; a seed chooses the 100 images too.",
            "",
            f"| trained | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean ± deviation |",
            f"|---|{'--:|' * (len(SEEDS) + 1)}",
            *rows,
            "",
            "The linear probe trains a new classifier on the frozen network; fine-tuning begins as the probe "
            "does, for a quarter of the epochs, and goes on with the whole network at a tenth of the rate.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="Fashion-MNIST's IDX files")
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    scores = list(measure(options.data, options.work))
    options.output.joinpath("finetune.md").write_text(page(scores))


if __name__ == "__main__":
    main()
