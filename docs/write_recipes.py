"""Writes the page on the recipes: `python docs/write_recipes.py > docs/recipes.md`."""

import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import recipes
from resnet_jax.models.analysis.roofline import DATA_SHEETS
from resnet_jax.models.analysis.summary import summarize

ROOT = Path(__file__).parents[1]
IMAGES = 1_281_167
DEVICES = {"A100": "NVIDIA A100-SXM4-80GB", "H100": "NVIDIA H100 80GB HBM3"}
COUNT, SHARE = 8, 0.5

_HEAD = """# The recipes

Every file in [`configs/`](../configs). This page is written by `python docs/write_recipes.py > docs/recipes.md`; a test
holds it to the files. `python launch.py --mode=recipes` lists them, and `--config` takes their names.

"Measured" is the mean and deviation over seeds of runs of this package, see [results](../results/fashion_mnist.md);
nothing of ImageNet, CIFAR or Imagenette has been. "Expected" is what others published for the same recipe, with the
source; each file says what in it is not the same, what it changes of the recipe before it, and what DIR holds.

Hours of ImageNet are modelled, not measured (`python docs/write_recipes.py hours`): {images:,} images an epoch, each
moving what a training step moves in 16 bit when normalisation runs in kernels of its own (`--mode=summarize` prints
it), at {share:.0%} of the memory bandwidth that {count} GPUs have by their data sheet. PyTorch's published speeds of
ResNet-50 are at 43 %, the fastest published ones at 59 to 77 %. Evaluation, a teacher and waiting for data come on top.

| recipe | what it is | measured | expected | cost | command |
|---|---|---|---|---|---|
"""


def write_page() -> str:
    """Returns docs/recipes.md."""
    head, scores = _HEAD.format(images=IMAGES, share=SHARE, count=COUNT), measured()
    return head + "\n".join(_row(name, path, scores) for name, path in _in_order())


def _in_order() -> list[tuple[str, Path]]:
    """Returns the recipes, those of no folder first."""
    return sorted(recipes.shipped().items(), key=lambda item: ("/" in item[0], item[0]))


def _row(name: str, path: Path, scores: dict[str, str]) -> str:
    told = recipes.told(path)
    data = {
        "digits": "",
        # TFDS has it under this name; what is published are IDX files.
        "fashion_mnist": " --config.data.name=idx --config.data.dir=DIR",
    }.get(recipes.load(path).data.name, " --config.data.dir=DIR")
    cells = (
        f"[`{name}`](../configs/{name}.py)",
        recipes.headline(path),
        scores.get(name, ""),
        told["Expected"],
        told["Cost"],
        f"`python launch.py --config={name}{data}`",
    )
    return f"| {' | '.join(cells)} |"


def hours_line(config: ConfigDict) -> str:
    """Returns what a recipe's docstring says of its hours."""
    hours = ", ".join(
        f"{modelled_hours(config, kind):.2g} h on {COUNT} {name}" for name, kind in DEVICES.items()
    )
    return f"modelled: {hours}"


def modelled_hours(config: ConfigDict, kind: str) -> float:
    """Returns the modelled hours of a recipe of ImageNet on `COUNT` devices of a kind."""
    moved = IMAGES * sum(
        epochs * _bytes_an_image(config_lib.build_model(config), size)
        for epochs, size in _stages(config)
    )
    _, bandwidth = DATA_SHEETS[kind]
    return moved / (COUNT * SHARE * bandwidth) / 3600


def _stages(config: ConfigDict) -> Iterator[tuple[float, int]]:
    """Yields how many epochs are trained at which size."""
    ends = [0.0, *config.data.progressive_epochs, config.num_epochs]
    sizes = [*config.data.progressive_sizes, config.data.image_size]
    for (begin, end), size in zip(itertools.pairwise(ends), sizes, strict=True):
        yield end - begin, size


@functools.cache
def _bytes_an_image(model, size: int) -> int:
    return summarize(model, size).floor.unfused_bytes


def measured() -> dict[str, str]:
    """Returns recipe -> its score, from the first table of results/fashion_mnist.md."""
    text = (ROOT / "results" / "fashion_mnist.md").read_text()
    lines = [line for line in text.partition("## Scores")[2].splitlines() if line.startswith("| ")]
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: not line.startswith("| recipe | with"), lines)
    )
    names = {name.replace("/", "_"): name for name in recipes.shipped()}
    found = {}
    for cells in rows:
        row = dict(zip(header, cells, strict=True))
        if row["recipe"] in names:  # not one with fields set
            found[names[row["recipe"]]] = f"{row['top-1']} (n = {row['n']})"
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["hours"]:
        for name, path in _in_order():
            config = recipes.load(path)
            if config.data.name == "imagenet2012" and config.num_epochs >= 1:
                print(f"{name}: {hours_line(config)}")
    else:
        print(write_page())
