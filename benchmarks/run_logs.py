"""Small logs of finished runs: a line on the run, then a line an epoch, kept beside the pages made
from them.
"""

import dataclasses
import importlib.util
import json
import shlex
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax import config as recipe
from resnet_jax import data, run
from resnet_jax.errors import UserError
from resnet_jax.models.analysis.summary import summarize
from resnet_jax.training.reporting import logbook

RECIPES = Path(__file__).parents[1] / "configs"
# Where the images lie and how a run keeps itself changes nothing that it learns.
OWN = recipe.HARMLESS | {"seed", "data.name"}
# What a run fills in for itself where the recipe leaves it open.
FILLED = {"precision", "model.num_classes", "data.image_size", "data.mean", "data.std"}


@dataclasses.dataclass(frozen=True)
class Log:
    """What is kept of a run.

    Attributes:
      header: "name" (the recipe, and what the command changed in it), "seed", "net", "parameters",
        "batch_size", "train_images", "test_images", "num_epochs", "fields" (those that differ from
        the defaults), "device", "cores", "versions", "date" and "command"; of our own runs also
        "commit" and "starts".
      epochs: for each, "step", "epoch", "train_loss" and "train_top1" (means over the epoch, in
        training mode), "test_loss" and "test_top1" where the test images were scored, and two times
        from the beginning of training on: "seconds", spent in steps, and "steady_seconds", had each
        step taken the median of its stretch.
    """

    header: dict[str, Any]
    epochs: list[dict[str, Any]]

    @property
    def top1(self) -> float:
        """The test score after the last step."""
        return self.epochs[-1]["test_top1"]


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Returns the runs among directories: themselves, or those that a sweep has left in them.

    Raises:
      UserError: a directory holds no run.
    """
    found = []
    for path in paths:
        runs = sorted(
            file.parent for file in [*path.glob("config.json"), *path.glob("*/config.json")]
        )
        if not runs:
            raise UserError(
                f"{path}: no run in it (no config.json); name the --workdir of a run or a sweep"
            )
        found += runs
    return found


def from_workdir(workdir: Path) -> Log | None:
    """Reads a run's log; None where the run has not finished.

    Raises:
      UserError: the run's test images are not the whole test split, or its recipe or its data is
        not to be found.
    """
    config, start = run.read_config(workdir), json.loads((workdir / "environment.json").read_text())
    check_split(config, str(workdir))
    source = data.open_source(config.data, train=True, seed=config.seed)
    test_images = len(data.open_source(config.data, train=False, seed=config.seed))
    epochs = epochs_of(logbook.read(workdir), config.batch_size)
    steps = round(config.num_epochs * (len(source) // config.batch_size))
    if not epochs or epochs[-1]["step"] < steps or "test_top1" not in epochs[-1]:
        return None
    header = describe(config, recipe_of(start[-1]["command"]), source, test_images)
    header |= {
        "device": start[-1]["devices"],
        "cores": start[-1]["cores"],
        "versions": {"python": start[-1]["python"], **start[-1]["packages"]},
        "commit": start[-1]["commit"],
        "date": start[0]["time"],
        "starts": len(start),
        "command": command_line(start[0]["command"]),
    }
    return Log(header, epochs)


def check_split(config: ConfigDict, where: str) -> None:
    """Checks that a recipe scores the test images, all of them.

    Raises:
      UserError: it scores others; the message begins with `where`.
    """
    if config.data.eval_split not in (None, "test"):
        raise UserError(
            f"{where}: scores {config.data.eval_split}; only runs scored on test belong here"
        )


def describe(
    config: ConfigDict, name: str, source: data.Source, test_images: int
) -> dict[str, Any]:
    """Returns the part of a header that the recipe decides.

    Args:
      config: the recipe as the run had it.
      name: of the file that it comes from.
      source: the training images.
      test_images: how many test images there are.
    """
    changes = changed(config, load_recipe(name))
    fields = changed(config, recipe.defaults())
    net = [
        f"{dotted[6:]}={compact(value)}"
        for dotted, value in fields.items()
        if dotted.startswith("model.")
    ]
    height, width, channels = source.image_shape
    return {
        "name": ",".join(
            [name, *(f"{dotted}={compact(value)}" for dotted, value in changes.items())]
        ),
        "seed": config.seed,
        "net": " ".join(
            [config.model.name, *(field for field in net if not field.startswith("name="))]
        ),
        "parameters": summarize(recipe.build_model(config), (height, width), channels).params,
        "batch_size": config.batch_size,
        "train_images": len(source),
        "test_images": test_images,
        "num_epochs": config.num_epochs,
        "fields": fields,
    }


def changed(config: ConfigDict, base: ConfigDict) -> dict[str, Any]:
    """Returns the fields that `config` has otherwise than `base`, but for `OWN` and what the run
    has filled in.
    """
    before = dict(recipe.flatten(base))

    def is_filled(dotted: str) -> bool:
        return dotted in FILLED and recipe.is_open(dotted, before[dotted])

    return {
        dotted: value
        for dotted, value in recipe.flatten(config)
        if value != before[dotted] and dotted not in OWN and not is_filled(dotted)
    }


def epochs_of(records: list[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
    """Returns the lines of a `Log` from those of a run's metrics.jsonl.

    A line of the training log tells of the steps since the one before: their means, their images a
    second, the median of their times. Evaluating and saving lie between those stretches.
    """
    scores = {record["step"]: record for record in records if record["split"] != "train"}
    stretches = [record for record in records if record["split"] == "train"]
    epochs, seconds, steady, step = [], 0.0, 0.0, 0
    loss = top1 = steps = 0.0
    for record in stretches:
        more, step = record["step"] - step, record["step"]
        seconds += more * batch_size / record["images_per_sec"]
        steady += more * record["step_ms_p50"] / 1000
        loss, top1, steps = loss + record["loss"] * more, top1 + record["top1"] * more, steps + more
        if record["epoch"] % 1 and record is not stretches[-1]:
            continue
        line = {"step": step, "epoch": record["epoch"]}
        line |= {"seconds": round(seconds, 2), "steady_seconds": round(steady, 2)}
        line |= {"train_loss": round(loss / steps, 5), "train_top1": round(top1 / steps, 5)}
        if step in scores:
            line |= {"test_loss": round(scores[step]["loss"], 5), "test_top1": scores[step]["top1"]}
        epochs.append(line)
        loss = top1 = steps = 0.0
    return epochs


def command_line(argv: list[str]) -> str:
    """Returns a start's command as a reader would type it, in a clone: no places of this machine,
    no workdir.
    """
    program = Path(argv[0])
    if program.name == "__main__.py":
        words = ["python", "-m", "resnet_jax"]
    elif program.parent.name == "benchmarks":
        words = ["python", "-m", f"benchmarks.{program.stem}"]
    else:
        words = ["python", "launch.py"]
    rest = iter(argv[1:])
    for word in rest:
        flag, equals, value = word.partition("=")
        field = flag.lstrip("-")
        places = {"config.data.dir": "DIR", "output": "results", "tensorflow_python": "PYTHON"}
        if field in ("workdir", "config", *places):
            value = value if equals else next(rest, "")
            word = f"{flag}=" + (places.get(field) or f"configs/{Path(value).name}")
        elif field.startswith("config.") and not equals:
            word = f"{flag}={next(rest, '')}"
        if field != "workdir":
            words.append(shlex.quote(word) if "[" in word else word)
    return " ".join(words)


def recipe_of(argv: list[str]) -> str:
    """Returns the name of the recipe that a start was given.

    Raises:
      UserError: the command has no --config.
    """
    for place, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag.lstrip("-") == "config":
            return Path(value if equals else argv[place + 1]).stem
    raise UserError(f"command {argv}: names no recipe, so the run's name is not known")


def load_recipe(name: str) -> ConfigDict:
    """Returns the recipe configs/<name>.py.

    Raises:
      UserError: there is none.
    """
    path = RECIPES / f"{name}.py"
    if not path.is_file():
        raise UserError(f"{path.name}: no such recipe in configs/, although a run was made from it")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def compact(value: Any) -> str:
    """Returns a field's value without blanks."""
    if isinstance(value, list):
        return ",".join(map(compact, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def write(log: Log, folder: Path, prefix: str = "") -> Path:
    """Keeps a log as <folder>/<name>/<prefix>seed<N>.jsonl and returns the path."""
    path = folder / log.header["name"] / f"{prefix}seed{log.header['seed']}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [log.header, *log.epochs]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


def read_all(folder: Path, prefix: str = "") -> dict[str, list[Log]]:
    """Returns the logs kept in a folder: name -> the runs in the order of their seeds."""
    logs: dict[str, list[Log]] = {}
    for path in sorted(folder.glob(f"*/{prefix}seed*.jsonl")):
        header, *epochs = map(json.loads, path.read_text().splitlines())
        logs.setdefault(header["name"], []).append(Log(header, epochs))
    return {name: sorted(found, key=lambda log: log.header["seed"]) for name, found in logs.items()}


def mean_and_deviation(values: list[float]) -> str:
    """Returns the mean and the sample standard deviation (n - 1) of scores."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"
