"""The peer in PyTorch at its best: channels_last, autocast to bfloat16, torch.compile, a fused
optimizer.
"""

import importlib.util

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.contest import Step


def make_network(name: str, channels: int, num_classes: int) -> nn.Module:
    """torchvision's network where torchvision is installed and images have 3 channels, else the
    reference network.
    """
    if importlib.util.find_spec("torchvision") and channels == 3:
        import torchvision

        return torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    from benchmarks import torch_resnet
    from resnet_jax import create_model

    return torch_resnet.Network(create_model(name, num_classes=num_classes), channels)


def make_step(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    mode: str | None = "default",
) -> Step:
    """See `contest`.

    Args:
      name: of the network, as torchvision has it.
      images: [N, H, W, C], float32.
      labels: [N].
      num_classes: of the classifier.
      dtype: "bfloat16" turns autocast on, which keeps parameters and statistics in float32.
      device: "cpu" or "cuda".
      mode: of torch.compile; "reduce-overhead" and "max-autotune" use CUDA graphs. None: without
        torch.compile.
    """
    torch.backends.cudnn.benchmark = True
    network = make_network(name, images.shape[3], num_classes).to(
        device, memory_format=torch.channels_last
    )
    batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels).to(device)
    fused = {"fused": True} if device == "cuda" else {}
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, **fused
    )

    def objective() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return functional.cross_entropy(network(batch), targets)

    if mode:
        objective = torch.compile(objective, mode=mode)

    def step() -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        loss = objective()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
