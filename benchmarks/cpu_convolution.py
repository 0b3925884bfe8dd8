"""Convolutions of networks on the CPU: ours, XLA's own and PyTorch's.

    python -m benchmarks.cpu_convolution --output results

times output, image gradient and kernel gradient of every distinct convolution of `cpu_training`'s
networks apart, contestants alternating, and prints GFLOP/s from the least time of each; with
--output it writes cpu_convolution.md there.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

from benchmarks.contest import machine, network, output_folder
from benchmarks.cpu_training import CASES, Case
from benchmarks.run_logs import command_line
from resnet_jax.distributed.runtime import keep_freed_memory
from resnet_jax.models.analysis.counting import trace
from resnet_jax.ops.conv2d import conv2d

OPERATIONS = ("output", "image gradient", "kernel gradient")


def shapes(case: Case) -> list[tuple[int, ...]]:
    """The distinct convolutions of a network in its order, each (side, channels, features, kernel,
    stride).
    """
    found = []
    for layer in trace(network(case.name), case.side, case.channels).layers:
        if layer.kind == "conv":
            (side, _, channels), (out, _, features) = layer.inputs, layer.outputs
            size = math.isqrt(layer.macs // (math.prod(layer.outputs) * channels))
            found.append((side, channels, features, size, -(-side // out)))
    return list(dict.fromkeys(found))


def stock(images, kernel, *, strides, padding):
    """XLA's own convolution."""
    return lax.conv_general_dilated(
        images, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def jax_calls(function, images, kernel, cotangent) -> list[Callable[[], object]]:
    """The three operations of a JAX convolution, compiled apart, each a function that waits for its
    result.
    """
    calls = [
        (function, (images, kernel)),
        (
            lambda x, w, g: jax.vjp(lambda x: function(x, w), x)[1](g)[0],
            (images, kernel, cotangent),
        ),
        (
            lambda x, w, g: jax.vjp(lambda w: function(x, w), w)[1](g)[0],
            (images, kernel, cotangent),
        ),
    ]
    return [
        partial(lambda f, a: jax.block_until_ready(f(*a)), jax.jit(f), arrays)
        for f, arrays in calls
    ]


def torch_calls(images, kernel, cotangent, stride: int, pad: int) -> list[Callable[[], object]]:
    """The same of PyTorch's, channels_last."""

    def nchw(array, axes):
        return torch.tensor(array.transpose(axes)).contiguous(memory_format=torch.channels_last)

    x, w, g = nchw(images, (0, 3, 1, 2)), nchw(kernel, (3, 2, 0, 1)), nchw(cotangent, (0, 3, 1, 2))

    def backward(mask):
        sizes = [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1
        return torch.ops.aten.convolution_backward(g, x, w, None, *sizes, mask)

    return [
        lambda: torch.conv2d(x, w, stride=stride, padding=pad),
        lambda: backward([True, False, False]),
        lambda: backward([False, True, False]),
    ]


def flops(batch: int, shape: tuple[int, ...]) -> int:
    """Floating-point operations of any of the three on such a shape, those on padding among
    them.
    """
    side, channels, features, size, stride = shape
    output = -(-side // stride)
    return 2 * batch * output**2 * features * size**2 * channels


def measure(batch: int, shape: tuple[int, ...], rounds: int) -> dict[str, list[float]]:
    """The least seconds of each contestant's three operations."""
    side, channels, features, size, stride = shape
    pad = size // 2
    out = (side + 2 * pad - size) // stride + 1
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=shape).astype(np.float32)
        for shape in (
            (batch, side, side, channels),
            (size, size, channels, features),
            (batch, out, out, features),
        )
    ]
    keywords = {"strides": (stride, stride), "padding": ((pad, pad), (pad, pad))}
    contestants = {
        "ours": jax_calls(partial(conv2d, **keywords), *map(jnp.asarray, arrays)),
        "XLA": jax_calls(partial(stock, **keywords), *map(jnp.asarray, arrays)),
        "PyTorch": torch_calls(*arrays, stride, pad),
    }
    least = {name: [np.inf] * 3 for name in contestants}
    for number in range(rounds + 1):
        for name, calls in contestants.items():
            for operation, call in enumerate(calls):
                call()  # not timed: the threads of the one before may still be awake
                start = time.perf_counter()
                call()
                if number:
                    least[name][operation] = min(
                        least[name][operation], time.perf_counter() - start
                    )
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [case.name for case in CASES]
    parser.add_argument("--networks", nargs="+", default=known, choices=known)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--output", type=output_folder, help="folder for the table; nothing is written without it"
    )
    arguments = parser.parse_args()
    keep_freed_memory()
    host = machine()
    lines = [
        "# Convolutions on the CPU",
        "",
        f"`{command_line(sys.argv)}` on {host['cores']} cores ({host['cpu']}), load",
        (
            f"{host['load_before']:.1f} before the run; float32, jax {jax.__version__}, torch"
            f" {torch.__version__}. GFLOP/s"
        ),
        (
            f"from the least time of {arguments.rounds}, padding counted as work: ours / XLA's own"
            " / PyTorch's. The"
        ),
        "process keeps its freed memory.",
        "",
        f"| network, batch | side, channels, features, kernel, stride | {' | '.join(OPERATIONS)} |",
        "|---|---|---|---|---|",
    ]
    for case in CASES:
        for shape in shapes(case) if case.name in arguments.networks else ():
            least = measure(case.batch, shape, arguments.rounds)
            work = flops(case.batch, shape) / 1e9
            cells = [" / ".join(f"{work / least[name][i]:.0f}" for name in least) for i in range(3)]
            lines.append(
                f"| {case.name}, {case.batch} | {', '.join(map(str, shape))} |"
                f" {' | '.join(cells)} |"
            )
            print(lines[-1], flush=True)
    if arguments.output:
        (arguments.output / "cpu_convolution.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
