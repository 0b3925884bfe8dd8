"""The pictures of pages in `results/`: SVGs, which the same logs make the same."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_jax.errors import UserError
from resnet_jax.report.learning import over_seeds
from resnet_jax.training.reporting.curves import Epochs


def draw(
    runs: Mapping[str, Sequence[Epochs]], path: Path, levels: Mapping[str, float] = {}
) -> None:
    """Draws top-1 against epochs as an SVG; the same runs give the same file.

    Args:
      runs: name -> the runs with each seed.
      path: ends in .svg.
      levels: label -> a score to compare with, dotted.

    Raises:
      UserError: matplotlib is not installed.
    """
    with svg(path, 7.5, 4.5) as figure:
        axes = figure.add_subplot(xlabel="epoch", ylabel="top-1")
        over_seeds(axes, runs, "eval_top1", "train_top1")
        for label, level in levels.items():
            axes.axhline(level, color="grey", linewidth=1, linestyle=":", label=label)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")


@contextlib.contextmanager
def svg(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yields an empty figure, in inches, and writes it as an SVG: the same lines, the same file.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(f"{path.name}: drawing needs matplotlib: pip install matplotlib") from error
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "resnet_jax", "font.size": 9}
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, metadata={"Date": None})
