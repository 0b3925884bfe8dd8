"""Convolutions of networks on the CPU, each with its two gradients: ours, XLA's own, PyTorch's.

python -m benchmarks.convolution --output=results
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from jax import lax

from benchmarks import pages
from benchmarks.harness import alternate, network, seconds_of
from benchmarks.train_step import MATCHES, Problem
from resnet_jax.distributed.runtime import keep_freed_memory
from resnet_jax.models.analysis.counting import trace
from resnet_jax.ops.conv2d import conv2d

OPERATIONS = ("output", "image gradient", "kernel gradient")
Shape = tuple[int, int, int, int, int]
"""Side of the images, their channels, features, side of the kernel, stride."""


def shapes(problem: Problem) -> list[Shape]:
    """Returns the distinct convolutions of a network, in its order."""
    found = {}
    for layer in trace(network(problem.network), problem.side, problem.channels).layers:
        if layer.kind == "conv":
            (side, _, channels), (out, _, features) = layer.inputs, layer.outputs
            size = math.isqrt(layer.macs // (math.prod(layer.outputs) * channels))
            found[side, channels, features, size, -(-side // out)] = None
    return list(found)


def stock(images, kernel, *, strides, padding):
    """XLA's own convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=layout)


def jax_calls(convolve: Callable, *arrays: np.ndarray) -> list[Callable[[], object]]:
    """The three operations of a JAX convolution on (images, kernel, cotangent), compiled apart."""
    arrays = jax.device_put(arrays)
    programs = (
        lambda x, w, g: convolve(x, w),
        lambda x, w, g: jax.vjp(lambda x: convolve(x, w), x)[1](g)[0],
        lambda x, w, g: jax.vjp(lambda w: convolve(x, w), w)[1](g)[0],
    )
    return [partial(lambda f: jax.block_until_ready(f(*arrays)), jax.jit(f)) for f in programs]


def torch_calls(images, kernel, cotangent, stride: int, pad: int) -> list[Callable[[], object]]:
    """The same of PyTorch's, channels_last."""
    x, w, g = (
        torch.tensor(array.transpose(axes)).contiguous(memory_format=torch.channels_last)
        for array, axes in (
            (images, (0, 3, 1, 2)),
            (kernel, (3, 2, 0, 1)),
            (cotangent, (0, 3, 1, 2)),
        )
    )
    sizes = [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1
    backward = partial(torch.ops.aten.convolution_backward, g, x, w, None, *sizes)
    return [
        lambda: torch.conv2d(x, w, stride=stride, padding=pad),
        lambda: backward([True, False, False]),
        lambda: backward([False, True, False]),
    ]


def measure(batch: int, shape: Shape, rounds: int) -> dict[str, list[float]]:
    """Returns GFLOP/s of each contestant's three operations, at the least time of its turns.

    All taps count, those on padding too: 2 * batch * out * out * features * size * size * channels.
    """
    side, channels, features, size, stride = shape
    pad, out = size // 2, -(-side // stride)
    images, kernel = (batch, side, side, channels), (size, size, channels, features)
    rng = np.random.default_rng(0)
    sizes = (images, kernel, (batch, out, out, features))
    arrays = [rng.standard_normal(size, np.float32) for size in sizes]
    keywords = {"strides": (stride, stride), "padding": ((pad, pad), (pad, pad))}
    contestants = {
        "ours": jax_calls(partial(conv2d, **keywords), *arrays),
        "XLA": jax_calls(partial(stock, **keywords), *arrays),
        "PyTorch": torch_calls(*arrays, stride, pad),
    }

    def turn(call: Callable[[], object]) -> float:
        call()  # not timed: it compiles, and the threads of the one before may still be awake
        return seconds_of(call)

    work = 2 * batch * out**2 * features * size**2 * channels / 1e9
    found = {name: [] for name in contestants}
    for number in range(len(OPERATIONS)):
        turns = {name: partial(turn, calls[number]) for name, calls in contestants.items()}
        played, _ = alternate(turns, rounds)
        for name in contestants:
            found[name].append(work / min(each[name] for each in played))
    return found


def row(batch: int, shape: Shape, rounds: int) -> pages.Row:
    """Returns the table's row of a convolution."""
    found = measure(batch, shape, rounds)
    fields = dict(zip(("side", "channels", "features", "kernel", "stride"), shape, strict=True))
    cells = [
        " / ".join(f"{speed:.0f}" for speed in each) for each in zip(*found.values(), strict=True)
    ]
    columns = [f"{operation}, {' / '.join(found)}" for operation in OPERATIONS]
    return fields | dict(zip(columns, cells, strict=True))


def main() -> None:
    arguments = pages.parser(__doc__, rounds=7).parse_args()
    keep_freed_memory()
    result = pages.record("convolution", "Convolutions on the CPU", "convolutions", "jax", "torch")
    for problem, _ in MATCHES["cpu"]:
        rows = [row(problem.batch, shape, arguments.rounds) for shape in shapes(problem)]
        result["tables"][f"{problem.network}, batch {problem.batch}"] = rows
    pages.save(result, arguments.output)


if __name__ == "__main__":
    main()
