"""How every figure of a report looks. matplotlib loads when the first one is drawn."""

import io
from collections.abc import Callable
from typing import Any

from resnet_jax.errors import UserError

# Okabe and Ito 2008, "Color Universal Design": told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY, INK = "#8a8f98", "#1f2328"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000", "#999933")
# Paul Tol's "muted" scheme (personal.sron.nl/~pault), for the ten classes of small data sets.
CLASS_COLOURS = (
    "#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE",
    "#882255", "#44AA99", "#999933", "#AA4499", "#6b6b6b",
)  # fmt: skip

# Inches: a figure is as wide as a telephone shows it with letters that can still be read.
WIDTH, HEIGHT, _DPI = 4.3, 2.9, 186
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "text.parse_math": False,
}


def check_packages() -> None:
    """Raises `UserError`, with the command that installs it, where a package is missing."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--mode=report needs {error.name}, which is not installed: pip install"
            " 'flax-resnet[report]'"
        ) from error


def drawn(draw: Callable[[Any], None], height: float = HEIGHT) -> bytes:
    """Returns a figure as a PNG.

    Args:
      draw: (matplotlib figure) puts axes into it.
      height: in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()
