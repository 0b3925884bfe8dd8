"""The least arithmetic and memory traffic that training on one image takes."""

import math
from typing import NamedTuple

from resnet_jax.models.analysis.counting import Layer, Trace
from resnet_jax.models.resnet import ResNet

# Dense 16-bit tensor throughput (FLOP/s) and memory bandwidth (bytes/s) of a device, from its
# makers' data sheets.
DATA_SHEETS = {
    "NVIDIA H200": (989e12, 4.8e12),
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 2.04e12),
    "NVIDIA A100-SXM4-40GB": (312e12, 1.56e12),
    "NVIDIA L40S": (362e12, 0.864e12),
    "Tesla V100-SXM2-16GB": (125e12, 0.9e12),
}


class Floor(NamedTuple):
    """What one image costs a training step.

    Attributes:
      flops: floating-point operations, two a multiply-add.
      unfused_bytes: read from and written to device memory when normalisation runs in kernels of
        its own.
      fused_bytes: the same when convolutions do the normalising.
    """

    flops: int
    unfused_bytes: int
    fused_bytes: int


def training_floor(model: ResNet, traced: Trace, value_bytes: int = 2) -> Floor:
    """Counts what an image costs in a training step, forward and backward, whatever runs it.

    Arithmetic: each convolution is done three times over (output, input gradient, kernel gradient),
    but for the
    first, whose input needs no gradient: 2 * (3 * total - first) operations. They are those of the
    definition; an algorithm such as Winograd's, which the CPU runs in places, needs fewer.
    ResNet-50 at 224: 2 * (3 * 4.089 - 0.118) = 24.3 billion.

    Traffic counts values that pass between kernels and device memory, nothing held in a cache,
    weights and optimizer not counted since a large batch shares them. With i and o the values of a
    layer's input and output:

      convolution    i + o forward, 2 o + i backward, and i more for the input gradient
                     (not the first, whose o is counted twice all the same, as in the
                     published figures: 0.4 % of ResNet-50)
      normalisation  forward 1 to take statistics and 2 to apply them (with the ReLU);
                     backward 2 to take the two sums and 3 to apply them: 8 o
      residual sum   forward 1 to read the shortcut; backward 1 for the ReLU's mask and 1 to
                     write the gradient that both branches share, of the block's output; 1 to
                     add the shortcut's, of its input
      max pool       i + o forward, o + 2 i backward
      gate           forward 3 (squeeze, read, write), backward 4: 7 o
      mean           its input, forward and backward

    The pools inside anti-aliased blocks are left out, and so is what `remat` computes again.

    "Fused" is the ideal of NormConv-like kernels: statistics and backward sums are taken while a
    convolution has the values in hand (1 + 2), normalisation is applied as the next convolution
    reads (2), and of its backward pass one reading of its input is left (3 - 1): 1 o in place of 8.
    A gate's values are counted twice only. ResNet-50 v1.5 at 224 in 16 bit: 22.2 MB of convolution
    outputs, 21.3 MB of inputs and 11.0 MB of block outputs make 358 MB unfused and 203 MB fused.

    Args:
      model: the network, for its stem's pool.
      traced: its `counting.trace`.
      value_bytes: 2 for bfloat16 and float16.
    """
    unfused = fused = 0
    first = next(layer for layer in traced.layers if layer.kind == "conv")
    for layer in traced.layers:
        plain, ideal = _traffic(layer, model.residual)
        unfused += plain
        fused += ideal
    both = _pool_traffic(model, first, traced) - math.prod(first.inputs)
    macs = sum(layer.macs for layer in traced.layers)
    return Floor(
        2 * (3 * macs - first.macs), (unfused + both) * value_bytes, (fused + both) * value_bytes
    )


def _traffic(layer: Layer, residual: bool) -> tuple[int, int]:
    """Values moved by one layer: in kernels of their own, and ideally fused."""
    i, o = math.prod(layer.inputs), math.prod(layer.outputs)
    if layer.kind == "conv":
        return 3 * i + 3 * o, 3 * i + 3 * o
    if layer.kind == "norm":
        return 8 * o, o
    if layer.kind == "gate":
        return 7 * o, 2 * o
    if layer.kind == "block" and residual:
        return 3 * o + i, 3 * o + i
    return 0, 0


def _pool_traffic(model: ResNet, first: Layer, traced: Trace) -> int:
    """Values moved by the stem's max pool, if any, and by the mean before the classifier."""
    blocks = [layer for layer in traced.layers if layer.kind == "block"]
    values = 2 * math.prod(blocks[-1].outputs)
    if model.pool_after_stem in ("max", "max_zeros"):
        height, width, channels = first.outputs[0], first.outputs[1], blocks[0].inputs[2]
        values += 3 * height * width * channels + 2 * math.prod(blocks[0].inputs)
    return values
