"""Residual networks in JAX and Flax.

from resnet_jax import create_model, list_models
model = create_model("resnet50", num_classes=10, dtype="bfloat16")
variables = model.init(jax.random.key(0), images, train=False)  # images [N, H, W, C]
logits = model.apply(variables, images, train=False)  # [N, 10], float32
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

import numpy as _np

from resnet_jax.description import Description as _Description
from resnet_jax.errors import UserError
from resnet_jax.models import ResNet, create_model, list_models, load_torch, save_torch

if _TYPE_CHECKING:
    from resnet_jax.classifier import Classifier

__all__ = [
    "Classifier",
    "ResNet",
    "UserError",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "load_torch",
    "preprocess",
    "restore",
    "save_torch",
]
__version__ = "0.2.0"


def __dir__() -> list[str]:
    """Lists what is public, and none of the modules that importing it has loaded."""
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> _Any:
    # Here, and not above, so that importing the networks alone brings no data or training code.
    if name == "Classifier":
        from resnet_jax.classifier import Classifier

        return Classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def restore(
    workdir: str, which: str | int = "best"
) -> tuple[ResNet, dict[str, _Any], _Description]:
    """Reads a trained network from a run.

    Args:
      workdir: what `--workdir` was.
      which: "best" by the run's metric, "last", or a step.

    Returns:
      The Flax module, its variables ("params" and "batch_stats"), and a
      `resnet_jax.description.Description`.

    Raises:
      UserError: there is no such run or checkpoint, or it is damaged.
    """
    from resnet_jax import run

    return run.restore(workdir, which)


def load_pretrained(name: str, **options: _Any) -> tuple[ResNet, dict[str, _Any], _Description]:
    """Reads a network that others trained; see `resnet_jax.pretrained.load_pretrained`.

    Args:
      name: a repository of the Hugging Face hub, such as "timm/resnet50.a1_in1k", a directory, or a
        file of weights.
      **options: `revision` of the repository; `size`, "train" or "test"; `model`, of a file.

    Returns:
      The Flax module, its variables and a `resnet_jax.description.Description`, as `restore` does.

    Raises:
      UserError: there is none, it cannot be fetched, or its network is not one of `list_models`.
    """
    from resnet_jax import pretrained

    return pretrained.load_pretrained(name, **options)


def list_pretrained(pattern: str = "*") -> list[str]:
    """Returns the sorted names of known repositories that match a pattern, such as "resnet50*"."""
    from resnet_jax import pretrained

    return pretrained.list_pretrained(pattern)


def preprocess(images: _Any, description: _Description) -> _np.ndarray:
    """Makes of images what a network takes; see `resnet_jax.data.images.preprocess`.

    Args:
      images: paths, PIL images or uint8 arrays.
      description: what `restore` or `load_pretrained` tells of the network.

    Returns:
      float32 [N, H, W, C].

    Raises:
      UserError: an image cannot be read.
    """
    from resnet_jax.data.images.preprocess import preprocess as prepare

    return prepare(images, description)
