"""Seconds to a test accuracy: our runs beside the same net, trained by the same recipe, in PyTorch
on the CPU.

    python -m benchmarks.time_to_accuracy --config=configs/NAME.py [--config.field=value ...] --output=results
    python -m benchmarks.time_to_accuracy --output=results   # the page again, from the logs kept

The first trains in PyTorch, which wants the machine for itself, and keeps a small log beside those
of our runs, which `benchmarks.fashion_mnist` keeps. Without --output it only prints.
"""

import datetime
import itertools
import json
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from benchmarks import run_logs
from benchmarks.run_logs import Log
from resnet_jax import config as recipe
from resnet_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "the recipe to train in PyTorch; none: only write the page"
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "folder of logs and page; nothing is written without it"
)

TARGETS = (0.92, 0.94)
COLUMNS = ("recipe", "with", "n", *(f"s to {target}" for target in TARGETS))
COLUMNS += ("final top-1", "training time (s)", "s an epoch", "images/s")


def train(config: ConfigDict, name: str) -> Log:
    """Trains a recipe in PyTorch, printing a line an epoch, and returns its log.

    Args:
      config: the recipe.
      name: of its file.

    Raises:
      UserError: the data is missing, or PyTorch or something that the recipe asks for is, or it
        scores another split.
    """
    from resnet_jax.experiment import assemble, prepare_runtime

    try:
        import torch

        from benchmarks.torch_training import Trainer
    except ImportError as error:
        raise UserError("training in PyTorch needs it: pip install torch") from error
    recipe.validate(config)
    run_logs.check_split(config, "the recipe")
    prepare_runtime(config)
    parts = assemble(config)
    header = run_logs.describe(
        parts.config, name, parts.train_loader.source, len(parts.eval_loader.source)
    ) | {
        "device": "1 × CPU in 1 process",
        "cores": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": run_logs.command_line(sys.argv),
    }
    epochs: list[dict[str, Any]] = []

    def report(record: dict[str, Any]) -> None:
        epochs.append(record)
        print(json.dumps(record), flush=True)

    Trainer(parts, parts.create_state().variables).run(report)
    return Log(header, epochs)


def page(ours: dict[str, list[Log]], peers: dict[str, list[Log]]) -> str:
    """Returns the page in Markdown: for each recipe trained in PyTorch, our runs and PyTorch's."""
    lines = [
        "# Time to accuracy on Fashion-MNIST",
        "",
        "`python -m benchmarks.time_to_accuracy --output=results` makes this page from the logs in",
        (
            "[`fashion_mnist/`](fashion_mnist). Seconds of training steps, waiting for data"
            " included, until the first"
        ),
        (
            "epoch after which the top-1 of the test images is what the column says; start-up,"
            " compiling and evaluating"
        ),
        (
            "are not in them. Medians over n seeds; in brackets, images/s at the median step. The"
            " runs were made one after"
        ),
        (
            "the other, so the machine's drift is in the comparison, as the range over the epochs"
            " shows:"
        ),
        (
            "[cpu_training.md](cpu_training.md) has training steps in turns. A target that lies"
            " among the final scores of"
        ),
        "the seeds is reached by some and missed by others, which says nothing of a framework.",
        "",
        (
            "PyTorch trains the same net (channels_last, float32, eager) from the same initial"
            " parameters on the same"
        ),
        (
            "batches, with the same augmentation (its own draws), schedule and loss; it makes its"
            " batches between the"
        ),
        (
            "steps. A recipe's header says how it was chosen, and whether test scores had a part in"
            " that."
        ),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for name, found in peers.items():
        lines.append(row(name, "JAX (this project)", ours.get(name, [])))
        lines.append(row(name, f"PyTorch {found[0].header['versions']['torch']}", found))
    lines += ["", "The commands (DIR holds the published IDX files):", ""]
    for name, found in peers.items():
        for log in [*ours.get(name, [])[:1], *found[:1]]:
            lines.append(
                f"- {log.header['date'][:10]}, {log.header['cores']} cores:"
                f" `{log.header['command']}`"
            )
    return "\n".join(lines) + "\n"


def row(name: str, framework: str, runs: list[Log]) -> str:
    """Returns the table's row of a recipe's runs in a framework."""
    if not runs:
        return f"| {name} | {framework} | 0 | not yet measured " + "|" * (len(COLUMNS) - 3)
    last = [log.epochs[-1] for log in runs]
    images = [line["step"] * log.header["batch_size"] for line, log in zip(last, runs, strict=True)]
    speed, steady = (
        statistics.median(count / line[kind] for count, line in zip(images, last, strict=True))
        for kind in ("seconds", "steady_seconds")
    )
    epochs = [
        line["seconds"] - before["seconds"]
        for log in runs
        for before, line in itertools.pairwise([{"seconds": 0.0}, *log.epochs])
    ]
    cells = [
        name,
        framework,
        str(len(runs)),
        *(median_time([time_to(log, target) for log in runs]) for target in TARGETS),
        run_logs.mean_and_deviation([log.top1 for log in runs]),
        f"{statistics.median(line['seconds'] for line in last):,.0f}",
        f"{min(epochs):,.0f} to {max(epochs):,.0f}",
        f"{speed:,.0f} ({steady:,.0f})",
    ]
    return f"| {' | '.join(cells)} |"


def time_to(log: Log, target: float) -> float | None:
    """Returns the seconds of training until the test top-1 was first at least `target`; None if it
    never was.
    """
    return next(
        (line["seconds"] for line in log.epochs if line.get("test_top1", 0) >= target), None
    )


def median_time(times: list[float | None]) -> str:
    """Returns the median of the times found, and how many runs got there if not all did."""
    found = [time for time in times if time is not None]
    if not found:
        return "not reached"
    return f"{statistics.median(found):,.0f}" + f" ({len(found)} of {len(times)})" * (
        len(found) < len(times)
    )


def main() -> int:
    if {"--help", "-h"} & set(sys.argv):
        print(f"{__doc__}\n{flags.FLAGS.main_module_help()}")
        return 0
    try:
        left = flags.FLAGS(sys.argv)[1:]
        if left:
            raise UserError(f"{left[0]!r} is not a flag: flags have the form --name=value")
        output = Path(_OUTPUT.value) if _OUTPUT.value else None
        if _CONFIG.value is not None:
            name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
            log = train(_CONFIG.value, name)
            if output is not None:
                run_logs.write(log, output / "fashion_mnist", prefix="torch_")
        if output is not None:
            folder = output / "fashion_mnist"
            peers = run_logs.read_all(folder, "torch_")
            if not peers:
                raise UserError(f"{folder} holds no log of PyTorch: name a recipe with --config")
            (output / "time_to_accuracy.md").write_text(page(run_logs.read_all(folder), peers))
    except (UserError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
