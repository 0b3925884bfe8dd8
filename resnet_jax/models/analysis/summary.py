"""A network's table, stage by stage: shapes, parameters, multiply-adds, activations, memory."""

import math
from typing import NamedTuple

import jax.numpy as jnp

from resnet_jax.models.analysis.counting import Shape, Trace, count_params, trace
from resnet_jax.models.analysis.roofline import Floor, training_floor
from resnet_jax.models.resnet import ResNet


class Row(NamedTuple):
    """A part of the network.

    Attributes:
      name: "stem", "stage1" .. "stageK" or "head".
      output: its output's shape for one image.
      params: trainable parameters.
      macs: multiply-adds of one image's forward pass.
      activations: values that its convolutions put out for one image.
      kept_bytes: what a training step keeps of one image for the backward pass: the inputs of
        convolutions, normalisations and the classifier, each map once, in the compute dtype; with
        `remat` those of blocks, or of stages, instead.
    """

    name: str
    output: Shape
    params: int
    macs: int
    activations: int
    kept_bytes: int


class Summary(NamedTuple):
    """A network's rows, their totals, and the floor of a training step in 16 bit."""

    rows: list[Row]
    params: int
    macs: int
    activations: int
    kept_bytes: int
    floor: Floor


def summarize(model: ResNet, image_size: int | tuple[int, int] = 224, channels: int = 3) -> Summary:
    """Counts a network, part by part, from shapes alone.

    Args:
      model: the network.
      image_size: height and width, in pixels.
      channels: of the image.

    Raises:
      UserError: the images are too small for the network.
    """
    traced = trace(model, image_size, channels)
    names = [*model.feature_info(), "head"]
    rows = [_row(name, model, traced) for name in names]
    counts = ("params", "macs", "activations", "kept_bytes")
    totals = {name: sum(getattr(row, name) for row in rows) for name in counts}
    return Summary(rows, **totals, floor=training_floor(model, traced))


def format_summary(summary: Summary, title: str) -> str:
    """Lays a summary out as text, for a terminal."""
    table = [("", "output", "parameters", "MMACs", "activations, M", "kept for backward, MB")]
    table += [(row.name, "x".join(map(str, row.output)), *_cells(row)) for row in summary.rows]
    table += [("total", "", *_cells(summary))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in cells
        )
        for cells in (enumerate(zip(row, widths, strict=True)) for row in table)
    ]
    floor = summary.floor
    lines += [
        "",
        f"parameters in float32: {4 * summary.params / 1e6:,.1f} MB",
        (
            f"a training step, per image: {floor.flops / 1e9:.3g} GFLOP; in 16 bit"
            f" {floor.unfused_bytes / 1e6:.3g} MB through device memory,"
            f" {floor.fused_bytes / 1e6:.3g} MB if ideally fused"
        ),
    ]
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _cells(part: Row | Summary) -> tuple[str, ...]:
    return (
        f"{part.params:,}",
        f"{part.macs / 1e6:,.2f}",
        f"{part.activations / 1e6:.3f}",
        f"{part.kept_bytes / 1e6:.2f}",
    )


def _row(name: str, model: ResNet, traced: Trace) -> Row:
    layers = [layer for layer in traced.layers if model.part_of(layer.path[0]) == name]
    keeping = [layer for layer in layers if layer.kind in ("conv", "norm", "dense")]
    if name.startswith("stage") and model.remat != "none":
        blocks = [layer for layer in layers if layer.kind == "block"]
        keeping = blocks if model.remat == "block" else blocks[:1]
    kept = sum(math.prod(layer.inputs) for layer in keeping if not layer.shares_input)
    variables = {
        key: tree for key, tree in traced.variables["params"].items() if model.part_of(key) == name
    }
    width = list(model.feature_info().values())[-1].channels
    output = (model.num_classes or width,) if name == "head" else layers[-1].outputs
    return Row(
        name,
        output,
        count_params({"params": variables}),
        sum(layer.macs for layer in layers),
        sum(math.prod(layer.outputs) for layer in layers if layer.kind == "conv"),
        kept * jnp.dtype(model.dtype).itemsize,
    )
