"""Weights, statistics and images that any machine makes again from names alone, for comparison with
PyTorch.
"""

import hashlib
import zlib

import numpy as np

SIZES = ((224, 224), (161, 193))
SMALL_SIZE = (64, 96)
CLASSES = 10
PRETRAINED_SIZE = (64, 64)


def fill(shapes):
    """Returns a state dictionary for key -> shape: random weights, BatchNorm statistics far from
    their defaults.
    """
    return {
        key: _values(key, tuple(shape)) for key, shape in shapes.items() if "num_batches" not in key
    }


def images(size):
    """Returns [1, H, W, 3] float32."""
    # NumPy promises that the stream of RandomState never changes.
    return np.random.RandomState(sum(size)).standard_normal((1, *size, 3)).astype(np.float32)


def digest(shapes):
    """Returns a fingerprint of keys and shapes, whatever their order."""
    lines = sorted(f"{key} {tuple(shape)}" for key, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _values(key, shape):
    draw = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        value = draw.uniform(0.5, 3, shape)
    elif key.endswith("running_mean"):
        value = draw.standard_normal(shape) * 0.5
    elif len(shape) >= 2:
        value = draw.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
    elif key.endswith("weight"):
        value = draw.uniform(0.3, 1, shape)
    else:
        value = draw.standard_normal(shape) * 0.3
    return value.astype(np.float32)
