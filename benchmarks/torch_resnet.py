"""The peer in PyTorch: a ResNet in channels_last and the plainest training step, for timing only."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def conv_norm(channels: int, features: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, padded symmetrically, and its BatchNorm."""
    conv = nn.Conv2d(channels, features, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(features))


class Block(nn.Module):
    """A basic or bottleneck block, stride in the 3x3 (v1.5)."""

    def __init__(self, channels: int, features: int, stride: int, bottleneck: bool):
        super().__init__()
        relu = nn.ReLU(inplace=True)
        if bottleneck:
            outputs = features * 4
            first = (conv_norm(channels, features, 1), relu, conv_norm(features, features, 3, stride), relu)
            self.branch = nn.Sequential(*first, conv_norm(features, outputs, 1))
        else:
            outputs = features
            first = (conv_norm(channels, features, 3, stride), relu)
            self.branch = nn.Sequential(*first, conv_norm(features, outputs, 3))
        same = stride == 1 and channels == outputs
        self.shortcut = nn.Identity() if same else conv_norm(channels, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.branch(x) + self.shortcut(x), inplace=True)


def make_network(name: str, channels: int, num_classes: int) -> nn.Module:
    """The ImageNet network `name` for images [N, channels, H, W]."""
    layers = [conv_norm(channels, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    bottleneck = name == "resnet50"
    width = 64
    for stage, blocks in enumerate(STAGES[name]):
        features = 64 * 2**stage
        for number in range(blocks):
            layers.append(Block(width, features, 2 if stage and not number else 1, bottleneck))
            width = features * (4 if bottleneck else 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def make_step(name: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> Callable[[], float]:
    """A function that trains `name` for one step (momentum SGD, weight decay) on the batch and returns the loss.

    Args:
      name: of the network.
      images: [N, H, W, C], float32.
      labels: [N].
      num_classes: of the classifier.
    """
    network = make_network(name, images.shape[3], num_classes).to(memory_format=torch.channels_last)
    batch = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    targets = torch.tensor(labels, dtype=torch.long)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(batch), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run
