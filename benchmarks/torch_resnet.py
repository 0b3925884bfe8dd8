"""The peer in PyTorch: the network of a `ResNet`'s fields in channels_last, and the plainest
training step.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.contest import network
from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.models.interop.torch_weights import save_torch

# Field of `ResNet` -> the values that the peer has.
SUPPORTED = {
    "version": ("v1", "v1.5"),
    "shortcut": ("B",),
    "residual": (True,),
    "stem": ("imagenet", "small"),
    "pool_after_stem": ("max", "none"),
    "groups": (1,),
    "width_per_group": (64,),
    "se_ratio": (0.0,),
    "stochastic_depth": (0.0,),
    "norm": ("batch",),
    "norm_group_size": (None,),
}


class Block(nn.Module):
    """A basic or bottleneck block after He et al. 2015; v1.5 strides in the 3x3, as torchvision
    does.
    """

    def __init__(
        self,
        model: ResNet,
        channels: int,
        features: int,
        stride: int,
        conv: Callable,
        norm: Callable,
    ):
        super().__init__()
        if model.block == "bottleneck":
            outputs, sizes = 4 * features, (1, 3, 1)
            strides = (stride, 1, 1) if model.version == "v1" else (1, stride, 1)
        else:
            outputs, sizes, strides = features, (3, 3), (stride, 1)
        widths = [channels, *[features] * (len(sizes) - 1), outputs]
        for number, size in enumerate(sizes):
            self.add_module(
                f"conv{number + 1}", conv(*widths[number : number + 2], size, strides[number])
            )
            self.add_module(f"bn{number + 1}", norm(widths[number + 1]))
        self.convolutions = len(sizes)
        self.downsample = None
        if stride != 1 or channels != outputs:
            self.downsample = nn.Sequential(conv(channels, outputs, 1, stride), norm(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.convolutions + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            if number < self.convolutions:
                x = functional.relu(x, inplace=True)
        return functional.relu(x + shortcut, inplace=True)


class Network(nn.Module):
    """A residual network [N, channels, H, W] -> [N, num_classes], its parameters named as in
    torchvision.

    Args:
      model: says which; its `dtype` and initialisation count for nothing here.
      channels: of the images.

    Raises:
      UserError: the peer lacks a field of `model`.
    """

    def __init__(self, model: ResNet, channels: int):
        super().__init__()
        check(model)

        def conv(channels: int, features: int, size: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(channels, features, size, stride, size // 2, bias=model.conv_bias)

        def norm(features: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(features, model.norm_epsilon, 1 - model.norm_momentum)

        width = model.stem_width or model.width
        self.conv1 = (
            conv(channels, width, 3) if model.stem == "small" else conv(channels, width, 7, 2)
        )
        self.bn1 = norm(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if model.pool_after_stem == "max" else nn.Identity()
        self.stages = len(model.stage_sizes)
        for stage, size in enumerate(model.stage_sizes):
            features, blocks = model.width * 2**stage, []
            for number in range(size):
                blocks.append(
                    Block(model, width, features, 2 if stage and not number else 1, conv, norm)
                )
                width = features * (4 if model.block == "bottleneck" else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.dropout = nn.Dropout(model.dropout)
        self.fc = nn.Linear(width, model.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(self.dropout(x.mean((2, 3))))


def check(model: ResNet) -> None:
    """Checks that the peer has what `model` asks for.

    Raises:
      UserError: it lacks a field's value.
    """
    for field, values in SUPPORTED.items():
        value = getattr(model, field)
        if value not in values:
            choices = " or ".join(map(repr, values))
            raise UserError(
                f"model.{field} = {value!r}: the network in PyTorch has {choices} alone"
            )


def load(network: nn.Module, variables: Mapping[str, Any]) -> None:
    """Copies the variables of a Flax `ResNet` into its peer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        save_torch(variables, path)
        network.load_state_dict(torch.load(path), strict=True)


def make_step(
    name: str, images: np.ndarray, labels: np.ndarray, num_classes: int
) -> Callable[[], torch.Tensor]:
    """A function that trains `name` for one step (momentum SGD, weight decay) on the batch and
    returns the loss.

    Args:
      name: of the network, see `contest.network`.
      images: [N, H, W, C], float32.
      labels: [N].
      num_classes: of the classifier.
    """
    peer = Network(network(name, num_classes=num_classes), images.shape[3])
    peer = peer.to(memory_format=torch.channels_last)
    batch = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    targets = torch.tensor(labels, dtype=torch.long)
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def run() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(peer(batch), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run
