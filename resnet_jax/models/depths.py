"""How far from the images each part of a network is."""

from collections.abc import Iterable, Mapping
from typing import Any

# Behind the last block; all else outside the blocks is the stem.
_HEAD = ("fc", "norm")
FIRST_CONVOLUTIONS = ("conv1", "conv1_0")
"""Names of the convolution that sees the image: of a stem of one, and of one of three."""


def module_depths(modules: Iterable[str]) -> dict[str, int]:
    """Returns the places of top-level modules: the stem's 0, the blocks' 1 to L, the head's L + 1.

    Args:
      modules: names as in a `ResNet`'s "params".
    """
    modules = list(modules)
    blocks = sorted(
        (tuple(map(int, name.removeprefix("layer").split("_"))), name)
        for name in modules
        if name.startswith("layer")
    )
    places = {name: number for number, (_, name) in enumerate(blocks, 1)}
    return {name: len(blocks) + 1 if name in _HEAD else places.get(name, 0) for name in modules}


def first_kernel(params: Mapping[str, Any]) -> Any:
    """Returns the kernel [h, w, channels, features] that sees the image."""
    return next(params[name]["kernel"] for name in FIRST_CONVOLUTIONS if name in params)
