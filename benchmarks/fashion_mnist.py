"""Fashion-MNIST: the page of results and the picture of the learning curves, from small logs of the
runs.

    python -m benchmarks.fashion_mnist --runs DIR ...   # --workdir of runs and sweeps: their logs are kept from now on
    python -m benchmarks.fashion_mnist                  # page and picture again, from the logs kept

The picture needs matplotlib.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks import run_logs
from benchmarks.run_logs import Log
from resnet_jax.errors import UserError

# What the tutorial reports: test top-1, and the fastest and slowest epoch in seconds on its CPU.
TUTORIAL, TUTORIAL_TOP1, TUTORIAL_SECONDS = "tutorial_resnet18_fashion_mnist", 0.8917, (1687, 1952)
COLUMNS = ("recipe", "net", "parameters", "training images", "epochs", "top-1", "n")
COLUMNS += ("training time (s)", "s an epoch", "device")


def record(paths: Iterable[Path], folder: Path) -> None:
    """Keeps the logs of the finished runs among `paths` in `folder`, and says what it does.

    Raises:
      UserError: see `run_logs`.
    """
    for workdir in run_logs.find_runs(paths):
        log = run_logs.from_workdir(workdir)
        if log is None:
            print(f"{workdir}: not finished, left out")
        else:
            print(f"{workdir}: kept as {run_logs.write(log, folder)}")


def page(logs: dict[str, list[Log]]) -> str:
    """Returns the page in Markdown.

    Args:
      logs: name -> the runs of each seed.
    """
    test_images = sorted({log.header["test_images"] for runs in logs.values() for log in runs})
    lines = [
        "# Fashion-MNIST",
        "",
        "`python -m benchmarks.fashion_mnist` makes this page and the picture from the logs in",
        (
            "[`fashion_mnist/`](fashion_mnist). Top-1 is that of the"
            f" {' or '.join(f'{n:,}' for n in test_images)} test"
        ),
        (
            "images after the last step, no checkpoint chosen: mean ± sample standard deviation"
            " over n seeds. A recipe's"
        ),
        "header says how it was chosen, and whether test scores had a part in that.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(row(name, runs) for name, runs in logs.items()),
        "",
        (
            "Training time is the median over the seeds of the seconds spent in training steps,"
            " waiting for data"
        ),
        (
            "included; start-up, compiling, evaluating and saving are not in it. It is wall time,"
            " so other work on the"
        ),
        (
            "machine, and pauses, are in it; in brackets: had each step taken the median of those"
            " logged with it."
        ),
        "",
        *tutorial(logs.get(TUTORIAL, [])),
        "![Learning curves](fashion_mnist.svg)",
        "",
        (
            "Test top-1 after each epoch, a thin line a seed and a thick one their mean; dashed:"
            " top-1 of the training"
        ),
        "images during the epoch, with its augmentation.",
        "",
        "The commands (DIR holds the published IDX files):",
        "",
    ]
    for name, runs in logs.items():
        commands = "; ".join(
            f"`{command}`" for command in dict.fromkeys(log.header["command"] for log in runs)
        )
        lines.append(f"- {name}, {environment(runs)}: {commands}")
    return "\n".join(lines) + "\n"


def row(name: str, runs: list[Log]) -> str:
    """Returns the table's row of a recipe."""
    header = runs[0].header
    epochs, total = header["num_epochs"], seconds(runs, "seconds")
    cells = [
        name,
        header["net"],
        f"{header['parameters']:,}",
        f"{header['train_images']:,}",
        f"{epochs:g}",
        run_logs.mean_and_deviation([log.top1 for log in runs]),
        str(len(runs)),
        f"{total:,.0f}",
        f"{total / epochs:,.1f} ({seconds(runs, 'steady_seconds') / epochs:,.1f})",
        devices(runs),
    ]
    return f"| {' | '.join(cells)} |"


def tutorial(runs: list[Log]) -> list[str]:
    """Returns the paragraph that sets our run of the tutorial's recipe beside what the tutorial
    reports.
    """
    if not runs:
        return []
    low, high = TUTORIAL_SECONDS

    def times(kind: str) -> str:
        ours = seconds(runs, kind) / runs[0].header["num_epochs"]
        return f"{low / ours:.1f} to {high / ours:.1f}"

    return [
        (
            f"The tutorial of `{TUTORIAL}` reports a top-1 of {TUTORIAL_TOP1} and {low:,} to"
            f" {high:,} s an epoch on its"
        ),
        (
            f"CPU: here an epoch of the same recipe is {times('seconds')} times faster"
            f" ({times('steady_seconds')}), on"
        ),
        f"{devices(runs)}. The two processors differ, so not all of it is the software's.",
        "",
    ]


def seconds(runs: list[Log], kind: str) -> float:
    """Returns the median over the runs of "seconds" or "steady_seconds" at the end."""
    return statistics.median(log.epochs[-1][kind] for log in runs)


def devices(runs: list[Log]) -> str:
    """Returns what the runs were made on, for example "2 CPU cores"."""

    def device(header: dict) -> str:
        on_cpu = header["device"].startswith("1 × CPU in 1 ")
        return f"{header['cores']} CPU cores" if on_cpu else header["device"]

    return ", ".join(dict.fromkeys(device(log.header) for log in runs))


def environment(runs: list[Log]) -> str:
    """Returns when and with which packages the runs were made."""
    dates = sorted(log.header["date"][:10] for log in runs)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    packages = dict.fromkeys(f"jax {log.header['versions']['jax']}" for log in runs)
    return f"{when}, {', '.join(packages)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=Path, nargs="*", default=[], help="--workdir of finished runs or sweeps"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results"), help="folder of logs, page and picture"
    )
    arguments = parser.parse_args()
    try:
        folder = arguments.output / "fashion_mnist"
        record(arguments.runs, folder)
        logs = run_logs.read_all(folder)
        if not logs:
            raise UserError(f"{folder} holds no logs: name finished runs with --runs")
        from benchmarks import learning_curves

        learning_curves.draw(logs, arguments.output / "fashion_mnist.svg", reference=TUTORIAL_TOP1)
        (arguments.output / "fashion_mnist.md").write_text(page(logs))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
