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

FIELDS = ("side", "channels", "features", "kernel", "stride")


def shapes(problem: Problem) -> list[tuple[int, ...]]:
    """Returns the `FIELDS` of the distinct convolutions of a network, in its order."""
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


def jax_calls(convolve: Callable, *arrays: np.ndarray) -> dict[str, Callable[[], object]]:
    """The operations of a JAX convolution on (images, kernel, cotangent), compiled apart."""
    arrays = jax.device_put(arrays)
    programs = {
        "output": lambda x, w, g: convolve(x, w),
        "image gradient": lambda x, w, g: jax.vjp(lambda x: convolve(x, w), x)[1](g)[0],
        "kernel gradient": lambda x, w, g: jax.vjp(lambda w: convolve(x, w), w)[1](g)[0],
    }
    call = lambda program: jax.block_until_ready(program(*arrays))  # noqa: E731
    return {name: partial(call, jax.jit(program)) for name, program in programs.items()}


def torch_calls(images, kernel, cotangent, stride: int, pad: int) -> dict[str, Callable]:
    """The same of PyTorch's, channels_last."""
    axes = {"x": (0, 3, 1, 2), "w": (3, 2, 0, 1), "g": (0, 3, 1, 2)}
    x, w, g = (
        torch.tensor(array.transpose(order)).contiguous(memory_format=torch.channels_last)
        for array, order in zip((images, kernel, cotangent), axes.values(), strict=True)
    )
    sizes = [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1
    backward = partial(torch.ops.aten.convolution_backward, g, x, w, None, *sizes)
    return {
        "output": partial(torch.conv2d, x, w, stride=stride, padding=pad),
        "image gradient": partial(backward, [True, False, False]),
        "kernel gradient": partial(backward, [False, True, False]),
    }


def row(batch: int, shape: tuple[int, ...], rounds: int) -> pages.Row:
    """Returns a convolution's row: GFLOP/s at the least time of each contestant's turns.

    All taps count, those on padding too: 2 * batch * out * out * features * size * size * channels.
    """
    side, channels, features, size, stride = shape
    pad, out = size // 2, -(-side // stride)
    sizes = (batch, side, side, channels), (size, size, channels, features)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n, np.float32) for n in (*sizes, (batch, out, out, features))]
    keywords = {"strides": (stride, stride), "padding": ((pad, pad), (pad, pad))}
    contestants = {
        "ours": jax_calls(partial(conv2d, **keywords), *arrays),
        "XLA": jax_calls(partial(stock, **keywords), *arrays),
        "PyTorch": torch_calls(*arrays, stride, pad),
    }

    def turn(call: Callable[[], object]) -> float:
        call()  # not timed: it compiles, and the threads of the one before may still be awake
        return seconds_of(call)

    work, found = 2 * batch * out**2 * features * size**2 * channels / 1e9, {}
    for operation in contestants["ours"]:
        turns = {name: partial(turn, calls[operation]) for name, calls in contestants.items()}
        played, _ = alternate(turns, rounds)
        speeds = [f"{work / min(each[name] for each in played):.0f}" for name in contestants]
        found[f"{operation}, {' / '.join(contestants)}"] = " / ".join(speeds)
    return dict(zip(FIELDS, shape, strict=True)) | found


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
