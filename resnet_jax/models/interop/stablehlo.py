"""A network as one StableHLO program that JAX alone runs, on CPUs, GPUs and TPUs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from resnet_jax.errors import UserError

PLATFORMS = ("cpu", "cuda", "tpu")


def check_installed() -> None:
    """Raises `UserError` where the package that writes the file is missing."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise UserError(
            "--format=stablehlo: jax.export writes its file by flatbuffers, which is missing; pip"
            ' install "flax-resnet[export]"'
        ) from error


def write_stablehlo(
    path: Path,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    raw: bool = False,
) -> None:
    """Writes a network, its weights inside, as what `jax.export.deserialize` reads.

    The program takes uint8 pixels [N, size, size, C] of any N, and gives probabilities
    [N, num_classes], or pooled features where the network has no classifier. With `raw` it takes
    normalised images, float32 of the same shape, and gives logits.

    Args:
      path: the file.
      model: the network; its `dtype` is that of the program's arithmetic.
      variables: {"params"} and, with BatchNorm, {"batch_stats"}.
      size: side of the images in pixels.
      mean, std: per channel, of pixels in 0..1.
      raw: whether normalisation and softmax are left out.

    Raises:
      UserError: flatbuffers is not installed, or the weights are too large for the file's format.
      OSError: the file cannot be written.
    """
    check_installed()
    moments = [np.asarray(moment, np.float32) for moment in (mean, std)]

    def program(images: jax.Array) -> Any:
        if raw:
            return model.apply(variables, images)
        logits: Any = model.apply(variables, normalise(images, *moments))
        return jax.nn.softmax(logits) if model.num_classes else logits

    (count,) = export.symbolic_shape("n")
    dtype = jnp.float32 if raw else jnp.uint8
    images = jax.ShapeDtypeStruct((count, size, size, len(mean)), dtype)
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


def read_stablehlo(path: Path) -> Callable[[np.ndarray], jax.Array]:
    """Returns the program of a file as a function of a batch."""
    return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)


def normalise(pixels: Any, mean: np.ndarray, std: np.ndarray) -> Any:
    """Returns (pixels / 255 - mean) / std in float32."""
    return (pixels.astype(np.float32) / 255 - mean) / std
