"""Residual blocks: basic and bottleneck, versions v1, v1.5 and v2, and the shortcuts A to D."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.layers import BatchNorm, Conv, SqueezeExcite, average_pool, drop_branch

ModuleFactory = Callable[..., nn.Module]


class ResidualBlock(nn.Module):
    """What every block does; `BasicBlock` and `BottleneckBlock` say which convolutions its branch
    has.

    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), out_features].

    Attributes:
      features: the width that the paper's tables name: a basic block has as many output channels, a
        bottleneck block four times as many.
      stride: of the block.
      version: "v1" (He et al. 2015: a bottleneck strides in its first 1x1), "v1.5" (in its 3x3, as
        torchvision) or "v2" (He et al. 2016, "Identity Mappings": BatchNorm and ReLU before each
        convolution, stride in the 3x3). A v2 projection reads the activated input, its identity the
        raw one.
      shortcut: "A" (identity; a stride takes every second pixel, added channels are zero), "A_pool"
        (the same with an average pool as the stride), "B" (1x1 projection where the shape changes),
        "C" (1x1 projection always) or "D" (where the shape changes: average pool, then a 1x1
        projection; He et al. 2019, "Bag of Tricks").
      residual: False leaves the shortcut out: the plain nets of He et al. 2015.
      groups, width_per_group: a bottleneck's 3x3 has `groups` groups and features * width_per_group
        / 64 * groups channels (Xie et al. 2017; Zagoruyko and Komodakis 2016).
      se_ratio: squeeze-and-excitation at the branch's end with this share of channels; 0 for none.
      zero_init: whether the branch's last layer starts at zero, so that the block starts as its
        shortcut: the last normalisation's scale (Goyal et al. 2017), or the last kernel where no
        normalisation follows it. Not in plain nets, which it would kill.
      conv, norm, se: factories of the layers; `norm=None` for none.
    """

    features: int
    stride: int = 1
    version: str = "v1.5"
    shortcut: str = "B"
    residual: bool = True
    groups: int = 1
    width_per_group: int = 64
    se_ratio: float = 0.0
    zero_init: bool = True
    conv: ModuleFactory = Conv
    norm: ModuleFactory | None = BatchNorm
    se: ModuleFactory = SqueezeExcite

    @property
    def out_features(self) -> int:
        """Channels of the output."""
        raise NotImplementedError

    def convolutions(self) -> tuple[dict[str, Any], ...]:
        """Returns the keyword arguments of the branch's convolutions, in order."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, drop_rate: float | jax.Array = 0.0
    ) -> jax.Array:
        """Applies the block; `train` drops its branch with probability `drop_rate` (rng
        "dropout").
        """
        before = self.version == "v2"
        specs = self.convolutions()
        y = activated = x
        for number, spec in enumerate(specs, 1):
            last = number == len(specs)
            zero = self.zero_init and self.residual and last
            if before:
                y = nn.relu(self._normalise(f"bn{number}", y, train))
            if number == 1:
                activated = y
            if zero and (before or self.norm is None):
                spec = spec | {"kernel_init": nn.initializers.zeros}
            y = self.conv(**spec, name=f"conv{number}")(y)
            if not before:
                y = self._normalise(f"bn{number}", y, train, zero)
                y = y if last else nn.relu(y)
        if self.se_ratio:
            y = self.se(ratio=self.se_ratio, name="se")(y)
        if self.residual:
            if train and not (isinstance(drop_rate, float) and drop_rate == 0):
                y = drop_branch(y, drop_rate, self.make_rng("dropout"))
            y = y + self._shortcut(x, activated, train)
        return y if before else nn.relu(y)

    def _normalise(self, name: str, x: jax.Array, train: bool, zero: bool = False) -> jax.Array:
        if self.norm is None:
            return x
        scale_init = nn.initializers.zeros if zero else nn.initializers.ones
        return self.norm(scale_init=scale_init, name=name)(x, train=train)

    def _shortcut(self, x: jax.Array, activated: jax.Array, train: bool) -> jax.Array:
        changes = self.stride != 1 or x.shape[-1] != self.out_features
        if self.shortcut in ("A", "A_pool"):
            return widen_identity(x, self.out_features, self.stride, pool=self.shortcut == "A_pool")
        if not changes and self.shortcut != "C":
            return x
        # The layers are numbered as in torchvision and, for D, whose first is the pool, as in timm.
        first, stride = 0, self.stride
        if self.shortcut == "D":
            first, stride = 1, 1
            activated = average_pool(activated, self.stride) if self.stride != 1 else activated
        y = self.conv(features=self.out_features, stride=stride, name=f"downsample_{first}")(
            activated
        )
        return y if self.version == "v2" else self._normalise(f"downsample_{first + 1}", y, train)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al. 2015, figure 5, left)."""

    @property
    def out_features(self) -> int:
        return self.features

    def convolutions(self) -> tuple[dict[str, Any], ...]:
        return (
            {"features": self.features, "size": 3, "stride": self.stride},
            {"features": self.features, "size": 3},
        )


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al. 2015, figure 5, right); with groups a ResNeXt
    block.
    """

    @property
    def out_features(self) -> int:
        return 4 * self.features

    def convolutions(self) -> tuple[dict[str, Any], ...]:
        width = self.features * self.width_per_group // 64 * self.groups
        in_first = self.stride if self.version == "v1" else 1
        return (
            {"features": width, "stride": in_first},
            {
                "features": width,
                "size": 3,
                "stride": self.stride // in_first,
                "groups": self.groups,
            },
            {"features": self.out_features},
        )


BLOCKS = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


def widen_identity(x: jax.Array, features: int, stride: int, *, pool: bool = False) -> jax.Array:
    """Option A of He et al. 2015: [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride),
    features].

    Args:
      x: the block's input.
      features: channels wanted, at least C; the added ones come last and are zero.
      stride: step between the pixels taken.
      pool: whether to average `stride` x `stride` windows instead of taking one pixel of each.
    """
    if stride != 1:
        x = average_pool(x, stride) if pool else x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
