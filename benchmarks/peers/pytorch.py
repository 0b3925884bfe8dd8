"""The peer in PyTorch: the network of a `ResNet`'s fields, channels_last, and a training step."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import torch
from torch import nn
from torch.nn import functional

from benchmarks.harness import Array, Step, network
from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.models.interop.torch_weights import save_torch

# Field of `ResNet` -> the values that the peer has.
SUPPORTED = {"version": ("v1", "v1.5"), "shortcut": ("B",), "residual": (True,), "groups": (1,)}
SUPPORTED |= {"stem": ("imagenet", "small"), "pool_after_stem": ("max", "none"), "se_ratio": (0.0,)}
SUPPORTED |= {"stochastic_depth": (0.0,), "norm": ("batch",), "norm_group_size": (None,)}


class Network(nn.Module):
    """The network of a Flax model with its variables: [N, C, H, W] -> [N, num_classes].

    Raises:
      UserError: the peer lacks a field's value.
    """

    def __init__(self, model: ResNet, variables: Mapping[str, Any]):
        super().__init__()
        refuse_others(SUPPORTED, lambda field: getattr(model, field), "model")
        with tempfile.TemporaryDirectory() as folder:
            save_torch(variables, Path(folder, "weights.pth"))
            state = torch.load(Path(folder, "weights.pth"))
        for name, value in state.items():  # "layer1.0.conv1.weight" is layer1_0_conv1_weight here
            is_moment = "running" in name or "num_batches" in name
            register = self.register_buffer if is_moment else self.register_parameter
            register(name.replace(".", "_"), value if is_moment else nn.Parameter(value))
        # Plain values: torch.compile cannot look into a Flax module.
        self._stem_stride = 1 if model.stem == "small" else 2
        self._has_pool, self._dropout = model.pool_after_stem == "max", model.dropout
        self._rate, self._epsilon = 1 - model.norm_momentum, model.norm_epsilon
        self._blocks: list[tuple[str, int, tuple[int, ...]]] = []
        for stage, size in enumerate(model.stage_sizes):
            for number in range(size):
                stride = 2 if stage and not number else 1
                strides = (stride, 1)
                if model.block == "bottleneck":  # v1.5 strides in the 3x3
                    strides = (stride, 1, 1) if model.version == "v1" else (1, stride, 1)
                self._blocks.append((f"layer{stage + 1}_{number}_", stride, strides))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self._unit(x, "conv1", "bn1", self._stem_stride), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1) if self._has_pool else x
        for name, stride, strides in self._blocks:
            y = x
            for number, step in enumerate(strides, 1):
                y = self._unit(y, f"{name}conv{number}", f"{name}bn{number}", step)
                y = functional.relu(y, inplace=True) if number < len(strides) else y
            if hasattr(self, f"{name}downsample_0_weight"):
                x = self._unit(x, f"{name}downsample_0", f"{name}downsample_1", stride)
            x = functional.relu(y + x, inplace=True)
        x = functional.dropout(x.mean((2, 3)), self._dropout, self.training)
        return functional.linear(x, self.fc_weight, self.fc_bias)

    def _unit(self, x: torch.Tensor, conv: str, norm: str, stride: int) -> torch.Tensor:
        """A convolution and BatchNorm."""
        kernel, bias = getattr(self, f"{conv}_weight"), getattr(self, f"{conv}_bias", None)
        x = functional.conv2d(x, kernel, bias, stride, kernel.shape[2] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        fields = [getattr(self, f"{norm}_{name}") for name in names]
        return functional.batch_norm(x, *fields, self.training, self._rate, self._epsilon)


def refuse_others(supported: Mapping[str, tuple], value_of: Callable, where: str) -> None:
    """Raises `UserError` for a field whose value the peer lacks."""
    for field, values in supported.items():
        if value_of(field) not in values:
            choices = " or ".join(map(repr, values))
            raise UserError(f"{where}.{field} = {value_of(field)!r}: the peer has {choices} alone")


def make_step(
    name: str, images: Array, labels: Array, num_classes: int, dtype: str, mode: str | None = None
) -> Step:
    """See `harness`; on the GPU where PyTorch finds one.

    `dtype` "bfloat16" turns autocast on, which keeps parameters and statistics in float32; `mode`
    is that of torch.compile, of which "reduce-overhead" uses CUDA graphs, None for eager.
    """
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout, model = {"memory_format": torch.channels_last}, network(name, num_classes=num_classes)
    variables = jax.jit(lambda key: model.init(key, images[:1], train=False))(jax.random.key(0))
    peer = Network(model, variables).to(device, **layout)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(device, **layout)
    targets, fused = torch.from_numpy(labels).to(device), device == "cuda" or None
    fields = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "fused": fused}
    optimizer = torch.optim.SGD(peer.parameters(), **fields)

    def objective() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return functional.cross_entropy(peer(batch), targets)

    objective = torch.compile(objective, mode=mode) if mode else objective

    def step() -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        loss = objective()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
