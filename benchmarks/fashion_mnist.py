"""Fashion-MNIST: scores and time to accuracy, from small logs of whole runs.

    python -m benchmarks.fashion_mnist --runs DIR ...   # keeps the logs of runs and sweeps, too
    python -m benchmarks.fashion_mnist                  # page and picture from the logs kept

A log has a line on the run, and a line an epoch (`resnet_jax.training.reporting.curves`). The logs
named torch_* are of the same net in PyTorch, from `benchmarks.time_to_accuracy`.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from benchmarks import drawing, pages
from resnet_jax import run, run_files
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.models import zoo
from resnet_jax.models.analysis.counting import count_params
from resnet_jax.scoring import score
from resnet_jax.training.reporting import curves, logbook
from resnet_jax.training.reporting.display import Display

# What the tutorial reports: test top-1, and the fastest and slowest epoch in seconds on its CPU.
TUTORIAL, TUTORIAL_TOP1 = "tutorials_resnet18_fashion_mnist", 0.8917
TUTORIAL_SECONDS = (1687, 1952)
TARGETS = (0.92, 0.94)


class Log(NamedTuple):
    """What is kept of a run: facts such as "name", "seed" and "command", and its epochs."""

    header: dict[str, Any]
    epochs: curves.Epochs


def read_run(workdir: Path) -> Log | None:
    """Reads the log of a run in its workdir; None where the run has not finished."""
    config, lines = run.read_config(workdir), logbook.read(workdir)
    starts = run_files.read_starts(epath.Path(workdir))
    first, last = starts[0], starts[-1]
    epochs = curves.by_epoch(lines, config.batch_size)
    if not epochs or epochs[-1]["epoch"] < config.num_epochs or "eval_top1" not in epochs[-1]:
        return None
    experiment = Experiment(config)
    model, variables, _ = run.restore(workdir, "last", mesh=experiment.mesh)
    sizes = last["train_images"], lines[-1]["examples"]
    header = describe(config, first["command"], variables, *sizes)
    if config.data.flip:  # A net that has seen mirrored images in training may see them again.
        scored, _ = score(experiment, model, variables, Display(silent=True), mirror=True)
        experiment.eval_loader.close()
        header["mirrored_top1"] = round(scored["top1"], 5)
    header |= {"date": first["time"], "cores": last["cores"], "commit": last["commit"]}
    return Log(header | {"versions": {"python": last["python"], **last["packages"]}}, epochs)


def describe(
    config: ConfigDict, argv: list[str], variables: Any, train_images: int, test_images: int
) -> dict[str, Any]:
    """Returns what a header has from the recipe and the command."""
    command = pages.command_line(argv)
    changes = re.findall(r"--config\.(?!data\.(?:dir|name)=|seed=)(\S+)", command)
    name = re.search(r"--config=(?:configs/)?(\S+)\.py", command)[1].replace("/", "_")
    header = {"name": ",".join([name, *changes]).replace("'", "")}
    header |= {"net": zoo.describe(config.model)} | facts(config, variables, train_images)
    header |= {"test_images": test_images, "command": command}
    return header | {"scored_on": config.data.eval_split or "test"}


def facts(config: ConfigDict, variables: Any, train_images: int) -> dict[str, Any]:
    """Returns what the header of every log has from the recipe and the network."""
    found = {name: config[name] for name in ("seed", "batch_size", "num_epochs")}
    return found | {"train_images": train_images, "parameters": count_params(variables)}


def write(log: Log, folder: Path, prefix: str = "") -> Path:
    """Keeps a log as <folder>/<name>/<prefix>seed<N>.jsonl and returns the path."""
    path = folder / log.header["name"] / f"{prefix}seed{log.header['seed']}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in (log.header, *log.epochs)))
    return path


def read_kept(folder: Path, prefix: str = "") -> dict[str, list[Log]]:
    """Returns the logs kept in a folder: name -> the runs in the order of their seeds."""
    logs: dict[str, list[Log]] = {}
    for path in sorted(folder.glob(f"*/{prefix}seed*.jsonl")):
        header, *epochs = map(json.loads, path.read_text().splitlines())
        logs.setdefault(header["name"], []).append(Log(header, epochs))
    return {name: sorted(runs, key=lambda log: log.header["seed"]) for name, runs in logs.items()}


def is_test(logs: list[Log]) -> bool:
    """Whether runs are scored on the test images, and not on training images left out."""
    return logs[0].header.get("scored_on", "test") == "test"


def score_row(name: str, logs: list[Log]) -> pages.Row:
    """Returns a recipe's row of scores."""
    header, found = logs[0].header, curves.over_seeds([log.epochs for log in logs])
    times = "{:.1f} to {:.1f}".format(*(one / found["s an epoch"] for one in TUTORIAL_SECONDS))
    facts = {"recipe": name, "net": header["net"], "parameters": header["parameters"]}
    facts |= {"images": header["train_images"], "epochs": f"{header['num_epochs']:g}"}
    mirrored = [log.header["mirrored_top1"] for log in logs if "mirrored_top1" in log.header]
    scores = {"top-1": found.pop("top-1")}
    scores |= {"top-1 with mirrored": curves.mean_and_deviation(mirrored) if mirrored else None}
    faster = times if name == TUTORIAL else None
    return facts | scores | found | {"cores": header["cores"], "times the tutorial's speed": faster}


def method_row(name: str, logs: Mapping[str, list[Log]]) -> pages.Row:
    """Returns the row of a recipe with fields set, beside the recipe as it is.

    What they bring is the mean difference to the run with the same seed, which starts from the
    same parameters and has the images in the same order, with its sample deviation.
    """
    recipe, _, method = name.partition(",")
    scores, plain = (
        {log.header["seed"]: log.epochs[-1]["eval_top1"] for log in logs.get(found, [])}
        for found in (name, recipe)
    )
    gains = [scores[seed] - plain[seed] for seed in scores if seed in plain]
    trained = [log.epochs[-1]["train_top1"] for log in logs[name]]
    row = {"recipe": recipe, "fields": method or "as it is", "n": len(scores)}
    row |= {"top-1": curves.mean_and_deviation([*scores.values()])}
    row |= {"gain": curves.mean_and_deviation(gains) if method and gains else None}
    return row | {"training top-1": curves.mean_and_deviation(trained)}


def time_row(name: str, framework: str, logs: list[Log]) -> pages.Row:
    """Returns the row of times of a recipe's runs in a framework."""
    epochs = [seconds for log in logs for seconds in curves.epoch_seconds(log.epochs)]
    speeds = [log.epochs[-1]["step"] / log.epochs[-1]["seconds"] for log in logs]
    found, row = (
        curves.over_seeds([log.epochs for log in logs]),
        {"recipe": name, "with": framework},
    )
    row |= {f"s to {target}": median_time(logs, target) for target in TARGETS}
    row |= {column: found[column] for column in ("n", "top-1", "training time (s)")}
    row |= {"s an epoch": f"{min(epochs):,.0f} to {max(epochs):,.0f}"}
    return row | {"images/s": statistics.median(speeds) * logs[0].header["batch_size"]}


def median_time(logs: list[Log], target: float) -> str:
    """Returns the seconds until the test score was first at least `target`, over the seeds."""
    found = []
    for log in logs:
        times = [line["seconds"] for line in log.epochs if line.get("eval_top1", 0) >= target]
        found += times[:1]
    share = f" ({len(found)} of {len(logs)})" if len(found) < len(logs) else ""
    return f"{statistics.median(found):,.0f}{share}" if found else "not reached"


def command_row(header: dict[str, Any]) -> pages.Row:
    """Returns the row on how a run was made: the command of its day, at its commit.

    DIR holds the published IDX files; "+" marks a commit with changes that were not committed.
    """
    engine = "torch" if "torch" in header["versions"] else "jax"
    made = f"{header['date'][:10]}, {engine} {header['versions'][engine]}"
    commit = header.get("commit") or ""
    row = {"command": f"`{header['command']}`", "made": made, "cores": header.get("cores")}
    return row | {"commit": commit[:7] + "+" * commit.endswith("+") or None}


def write_page(output: Path) -> None:
    """Makes page and picture from the logs kept in a folder.

    Raises:
      UserError: it has none of runs on the test images, or matplotlib is not installed.
    """
    kept, peers = (read_kept(output / "fashion_mnist", prefix) for prefix in ("", "torch_"))
    ours = {name: logs for name, logs in kept.items() if is_test(logs)}
    methods = {name: logs for name, logs in kept.items() if not is_test(logs)}
    if not ours:
        raise UserError(f"{output} has no logs in fashion_mnist/: name finished runs with --runs")
    times = []
    for name, logs in peers.items():
        times += [time_row(name, "JAX (this project)", ours[name])] if name in ours else []
        times += [time_row(name, f"PyTorch {logs[0].header['versions']['torch']}", logs)]
    headers = [log.header for found in (kept, peers) for logs in found.values() for log in logs]
    commands = {tuple(row.values()): row for row in map(command_row, headers)}
    tables = {"Scores": [score_row(*item) for item in ours.items()]}
    tables |= {"Seconds of training to a test score": times}
    if methods:
        tables["What a method brings to a small net"] = [
            method_row(name, methods) for name in methods
        ]
    tables["Runs"] = [*commands.values()]
    runs = {name: [log.epochs for log in logs] for name, logs in ours.items()}
    level = {f"the tutorial's {TUTORIAL_TOP1}": TUTORIAL_TOP1}
    drawing.draw(runs, output / "fashion_mnist.svg", level)
    command = "python -m benchmarks.fashion_mnist"
    facts = {"title": "Fashion-MNIST", "command": command, "about": "fashion-mnist"}
    text = pages.page(facts | {"picture": "fashion_mnist.svg", "tables": tables})
    (output / "fashion_mnist.md").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="finished runs, sweeps")
    parser.add_argument("--output", type=Path, default=Path("results"), help="of logs and page")
    arguments = parser.parse_args()
    try:
        for path in arguments.runs:
            for workdir in sorted(file.parent for file in path.glob("**/config.json")):
                log = read_run(workdir)
                kept = write(log, arguments.output / "fashion_mnist") if log else None
                print(f"{workdir}: {kept or 'not finished, left out'}")
        write_page(arguments.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
