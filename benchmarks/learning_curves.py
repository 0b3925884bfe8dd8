"""Learning curves of several runs in one picture."""

import statistics
from pathlib import Path

from benchmarks.run_logs import Log
from resnet_jax.errors import UserError


def draw(logs: dict[str, list[Log]], path: Path, *, reference: float) -> None:
    """Draws test top-1 against epochs, a thin line a seed and a thick one the mean; dashed: of the
    training images.

    The same logs give the same file.

    Args:
      logs: name -> the runs of each seed.
      path: ends in .svg.
      reference: a dotted level, what the tutorial reports.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            f"{path.name}: drawing it needs matplotlib: pip install matplotlib"
        ) from error
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "resnet_jax", "font.size": 9}
    ):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, runs) in enumerate(logs.items()):
            color = f"C{number}"
            for log in runs:
                axes.plot(*curve([log], "test_top1"), color=color, linewidth=0.6, alpha=0.6)
            mean = curve(runs, "test_top1")
            marker = "o" if len(mean[0]) == 1 else ""
            axes.plot(
                *mean, color=color, linewidth=2, marker=marker, label=f"{name} (n = {len(runs)})"
            )
            axes.plot(*curve(runs, "train_top1"), color=color, linewidth=1, linestyle="--")
        axes.axhline(
            reference, color="grey", linewidth=1, linestyle=":", label=f"the tutorial's {reference}"
        )
        axes.set(xlabel="epoch", ylabel="top-1")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        figure.savefig(path, metadata={"Date": None})


def curve(runs: list[Log], kind: str) -> tuple[list[float], list[float]]:
    """Returns the epochs at which every run has a score of a kind, and the means over the runs
    there.
    """
    scores = [{line["epoch"]: line[kind] for line in log.epochs if kind in line} for log in runs]
    epochs = sorted(set.intersection(*map(set, scores)))
    return epochs, [statistics.mean(found[epoch] for found in scores) for epoch in epochs]
