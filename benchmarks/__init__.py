"""Side-by-side measurements; the peers come with `pip install -e ".[bench]"`."""

import sys

_show = sys.excepthook


def _name_what_is_missing(kind, error, trace):
    """Says in a line which package a benchmark lacks; any other error is shown as ever."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in ("", "benchmarks", "resnet_jax"):
        _show(kind, error, trace)
        return
    print(
        f'error: this benchmark needs {package}: pip install -e ".[bench]" installs the peers, '
        f"pip install {package} this one",
        file=sys.stderr,
    )


sys.excepthook = _name_what_is_missing
