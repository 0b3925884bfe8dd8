"""Convolutions of networks on the CPU: ours, XLA's own and PyTorch's.

    python -m benchmarks.cpu_convolution --output results

times output, image gradient and kernel gradient of every distinct convolution apart, contestants alternating, and
prints GFLOP/s from the least time of each; with --output it writes cpu_convolution.md there.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

from resnet_jax.data.decode import cores
from resnet_jax.models.convolution import conv2d

# (side, channels, features, kernel, stride), in the order of the network.
SHAPES = {
    "resnet18": (
        64,
        [
            (28, 1, 64, 7, 2),
            (7, 64, 64, 3, 1),
            (7, 64, 128, 3, 2),
            (7, 64, 128, 1, 2),
            (4, 128, 128, 3, 1),
            (4, 128, 256, 3, 2),
            (4, 128, 256, 1, 2),
            (2, 256, 256, 3, 1),
            (2, 256, 512, 3, 2),
            (2, 256, 512, 1, 2),
            (1, 512, 512, 3, 1),
        ],
    ),
    "resnet50": (
        16,
        [
            (224, 3, 64, 7, 2),
            (56, 64, 64, 1, 1),
            (56, 64, 64, 3, 1),
            (56, 64, 256, 1, 1),
            (56, 256, 64, 1, 1),
            (56, 256, 128, 1, 1),
            (56, 128, 128, 3, 2),
            (56, 256, 512, 1, 2),
            (28, 128, 512, 1, 1),
            (28, 512, 128, 1, 1),
            (28, 128, 128, 3, 1),
            (28, 256, 256, 3, 2),
            (14, 256, 1024, 1, 1),
            (14, 1024, 256, 1, 1),
            (14, 256, 256, 3, 1),
            (14, 512, 512, 3, 2),
            (7, 512, 2048, 1, 1),
            (7, 2048, 512, 1, 1),
            (7, 512, 512, 3, 1),
        ],
    ),
    "fashion_mnist_best": (
        128,
        [
            (28, 1, 32, 3, 1),
            (14, 32, 64, 3, 1),
            (14, 64, 64, 3, 1),
            (14, 64, 128, 3, 2),
            (7, 128, 128, 3, 1),
            (7, 128, 256, 3, 2),
            (4, 256, 256, 3, 1),
        ],
    ),
}
OPERATIONS = ("output", "image gradient", "kernel gradient")


def stock(images, kernel, *, strides, padding):
    """XLA's own convolution."""
    return lax.conv_general_dilated(
        images, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def jax_calls(function, images, kernel, cotangent) -> list[Callable[[], object]]:
    """The three operations of a JAX convolution, compiled apart, each a function that waits for its result."""
    calls = [
        (function, (images, kernel)),
        (lambda x, w, g: jax.vjp(lambda x: function(x, w), x)[1](g)[0], (images, kernel, cotangent)),
        (lambda x, w, g: jax.vjp(lambda w: function(x, w), w)[1](g)[0], (images, kernel, cotangent)),
    ]
    return [partial(lambda f, a: jax.block_until_ready(f(*a)), jax.jit(f), arrays) for f, arrays in calls]


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
    """Floating-point operations of any of the three on such a shape, those on padding among them."""
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
                start = time.perf_counter()
                call()
                if number:
                    least[name][operation] = min(least[name][operation], time.perf_counter() - start)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="folder for the table; nothing is written without it")
    arguments = parser.parse_args()
    lines = [
        "# Convolutions on the CPU",
        "",
        f"`python -m benchmarks.cpu_convolution --rounds={arguments.rounds}` on {cores()} cores,",
        f"float32, jax {jax.__version__}, torch {torch.__version__}. GFLOP/s from the least time, padding counted as",
        f"work: ours / XLA's own / PyTorch's. Load before the run: {os.getloadavg()[0]:.1f}.",
        "",
        f"| network, batch | side, channels, features, kernel, stride | {' | '.join(OPERATIONS)} |",
        "|---|---|---|---|---|",
    ]
    for network in arguments.networks:
        batch, shapes = SHAPES[network]
        for shape in shapes:
            least = measure(batch, shape, arguments.rounds)
            work = flops(batch, shape) / 1e9
            cells = [" / ".join(f"{work / least[name][i]:.0f}" for name in least) for i in range(3)]
            lines.append(f"| {network}, {batch} | {', '.join(map(str, shape))} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if arguments.output:
        (arguments.output / "cpu_convolution.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
