"""Residual networks as Flax modules: importable alone, with jax and flax and nothing else."""

import os
from collections.abc import Mapping
from typing import Any

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.zoo import create_model, list_models

__all__ = [
    "BasicBlock",
    "BottleneckBlock",
    "ResNet",
    "create_model",
    "list_models",
    "load_torch",
    "save_torch",
]


def load_torch(model: ResNet | str, path: str | os.PathLike, **options: Any) -> dict[str, Any]:
    """Reads PyTorch weights as variables of a network: see `interop.torch_weights.load_torch`."""
    from resnet_jax.models.interop import torch_weights

    return torch_weights.load_torch(model, path, **options)


def save_torch(variables: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Writes variables as PyTorch weights: see `interop.torch_weights.save_torch`."""
    from resnet_jax.models.interop import torch_weights

    torch_weights.save_torch(variables, path)
