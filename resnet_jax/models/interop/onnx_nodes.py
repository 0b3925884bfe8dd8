"""ONNX nodes of maps [N, C, H, W], as they come: what a network's graph is made of."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper


class Nodes:
    """A list of nodes and the constants that they read, by name.

    Every method adds nodes and returns the name of their output.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one output."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        """Adds an array, which replaces one of the same name."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def pad(self, x: str, pads: Sequence[int], mode: str = "constant") -> str:
        """Pads by (before of each axis, after of each axis)."""
        name = "pads_" + "_".join(map(str, pads))
        return self.add("Pad", x, self.constant(name, np.asarray(pads)), mode=mode)

    def every(self, x: str, stride: int) -> str:
        """Takes every `stride`-th pixel."""
        spans = {"from": 0, "to": 2**31 - 1, "map_axes": (2, 3), f"by_{stride}": stride}
        lists = {name: np.broadcast_to(value, 2) for name, value in spans.items()}
        return self.add("Slice", x, *(self.constant(*item) for item in lists.items()))

    def average(self, x: str, stride: int) -> str:
        """Averages windows; one that reaches past the edge averages the pixels it has."""
        window = {"kernel_shape": [stride] * 2, "strides": [stride] * 2, "ceil_mode": 1}
        return x if stride == 1 else self.add("AveragePool", x, **window)

    def blur(self, x: str, stride: int, channels: int) -> str:
        """Smooths by (1, 2, 1) / 4 both ways, edges reflected, and takes every stride-th pixel."""
        row = np.array([1, 2, 1], np.float32) / 4
        kernel = np.tile(np.outer(row, row), (channels, 1, 1, 1))
        padded = self.pad(x, [0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")
        name = self.constant(f"blur_{channels}", kernel)
        return self.add("Conv", padded, name, strides=[stride] * 2, group=channels)


def over_map(values: np.ndarray) -> np.ndarray:
    """Gives an array two more axes, for height and width."""
    return values[..., None, None]
