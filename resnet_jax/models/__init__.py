"""Residual networks as Flax modules: importable alone, with jax and flax and nothing else."""

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.interop.torch_weights import load_torch, save_torch
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
