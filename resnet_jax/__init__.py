"""Residual networks in JAX and Flax.

from resnet_jax import create_model, list_models
model = create_model("resnet50", num_classes=10, dtype="bfloat16")
variables = model.init(jax.random.key(0), images, train=False)  # images [N, H, W, C]
logits = model.apply(variables, images, train=False)  # [N, 10], float32
"""

from typing import Any as _Any

from resnet_jax.errors import UserError
from resnet_jax.models import ResNet, create_model, list_models, load_torch, save_torch

__all__ = [
    "ResNet",
    "UserError",
    "create_model",
    "list_models",
    "load_torch",
    "restore",
    "save_torch",
]
__version__ = "0.2.0"


def __dir__() -> list[str]:
    """Lists what is public, and none of the modules that importing it has loaded."""
    return sorted([*__all__, "__version__"])


def restore(workdir: str, which: str | int = "best") -> tuple[ResNet, dict[str, _Any], _Any]:
    """Reads a trained network from a run.

    Args:
      workdir: what `--workdir` was.
      which: "best" by the run's metric, "last", or a step.

    Returns:
      The Flax module, its variables ("params" and "batch_stats"), and a
      `resnet_jax.run.Description`.

    Raises:
      UserError: there is no such run or checkpoint, or it is damaged.
    """
    # Here, and not above, so that importing the networks alone brings no data or training code.
    from resnet_jax import run

    return run.restore(workdir, which)
