"""The residual network: one module whose fields make every variant of the family."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.errors import UserError
from resnet_jax.models.blocks import BLOCKS, ResidualBlock
from resnet_jax.models.checks import as_dtype, check_fields
from resnet_jax.models.layers import (
    BatchNorm,
    Conv,
    GroupNorm,
    SqueezeExcite,
    global_mean,
    linear_uniform,
)
from resnet_jax.models.scan import scan_blocks
from resnet_jax.ops.max_pool import max_pool


class FeatureInfo(NamedTuple):
    """A feature map's channels and its stride: image pixels from one position to the next."""

    channels: int
    stride: int


class ResNet(nn.Module):
    """A residual network for images (He et al. 2015, "Deep Residual Learning") and its descendants.

    Images [N, H, W, C] with any C -> logits [N, num_classes], float32 whatever `dtype` (float64
    with float64 parameters). `method="features"` gives the maps instead. Variables: "params", named
    as in torchvision with "layer1.0" written "layer1_0"; "batch_stats" where `norm="batch"`. The
    rng "dropout" is needed in training when `dropout` or `stochastic_depth` is on. Blocks' fields
    are explained at `blocks.ResidualBlock`.

    Attributes:
      stage_sizes: blocks of each stage; every stage but the first halves the map and doubles the
        features.
      block, version, shortcut, residual, groups, width_per_group, se_ratio, zero_init: of the
        blocks.
      stem: "imagenet" (7x7, stride 2), "small" (3x3, stride 1) or "deep" (three 3x3, the first with
        stride 2, the first two with half the channels; He et al. 2019, ResNet-C).
      stem_width: channels after the stem; None: as `width`.
      stem_pool: "max" (3x3, stride 2), "conv" (3x3 convolution, stride 2; Bello et al. 2021) or
        "none"; None: "none" after a small stem and "max" after the others.
      width: features of the first stage.
      num_classes: 0 gives the pooled features [N, channels of the last stage].
      stochastic_depth: rate at which the last block drops its branch; earlier blocks in proportion
        to their number, block l of L with l / L times it (Huang et al. 2016).
      dropout: rate on the pooled features before the classifier.
      norm: "batch", "group" or "none".
      norm_momentum, norm_epsilon, norm_group_size, axis_name: see `layers.BatchNorm`.
      norm_channel_groups: groups of channels where `norm="group"`.
      conv_bias: whether convolutions have a bias.
      scan_blocks: whether to compile a stage's equal blocks once, as a loop. The parameters, their
        names and the function are the same, but for the draws of dropped branches; intermediates
        inside are not recorded.
      dtype: of the computation, a dtype or its name; statistics, pooling and the classifier are
        float32 or better.
      param_dtype: of the parameters.

    Raises:
      UserError: at construction, for an illegal or contradictory field; at the call, for images too
        small.
    """

    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    block: str = "bottleneck"
    version: str = "v1.5"
    shortcut: str = "B"
    residual: bool = True
    stem: str = "imagenet"
    stem_width: int | None = None
    stem_pool: str | None = None
    width: int = 64
    groups: int = 1
    width_per_group: int = 64
    se_ratio: float = 0.0
    num_classes: int = 1000
    stochastic_depth: float = 0.0
    dropout: float = 0.0
    norm: str = "batch"
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    norm_group_size: int | None = None
    norm_channel_groups: int = 32
    axis_name: str | Sequence[str] | None = None
    conv_bias: bool = False
    zero_init: bool = True
    scan_blocks: bool = False
    dtype: Any = "float32"
    param_dtype: Any = "float32"

    def __post_init__(self) -> None:
        for name in ("dtype", "param_dtype"):
            object.__setattr__(self, name, as_dtype(name, getattr(self, name)))
        check_fields(vars(self))
        object.__setattr__(self, "stage_sizes", tuple(self.stage_sizes))
        super().__post_init__()

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns logits [N, num_classes], or pooled features where `num_classes` is 0."""
        return self._forward(images, train, head=True)

    def features(self, images: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Returns {"stem", "stage1" .. "stageK"}: the map before the stem's pool and those after
        the stages.

        Each is [N, ceil(H / stride), ceil(W / stride), channels] in `dtype`, as `feature_info` says
        beforehand. A v2 net's last map has had its final normalisation and ReLU, so that its mean
        is the pooled features.
        """
        return self._forward(images, train, head=False)

    def feature_info(self) -> dict[str, FeatureInfo]:
        """Returns the channels and the stride of each map that `features` gives."""
        expansion = 4 if self.block == "bottleneck" else 1
        stride = 1 if self.stem == "small" else 2
        info = {"stem": FeatureInfo(self._stem_channels, stride)}
        stride *= 1 if self.pool_after_stem == "none" else 2
        for stage in range(len(self.stage_sizes)):
            info[f"stage{stage + 1}"] = FeatureInfo(
                self.width * 2**stage * expansion, stride * 2**stage
            )
        return info

    def smallest_image(self) -> int:
        """Returns the smallest height and width: every stride still has two pixels or more to
        halve.
        """
        stride = list(self.feature_info().values())[-1].stride
        return stride // 2 + 1

    @property
    def _stem_channels(self) -> int:
        return self.stem_width or self.width

    @property
    def pool_after_stem(self) -> str:
        """`stem_pool`, with None resolved by the stem."""
        return self.stem_pool or ("none" if self.stem == "small" else "max")

    @nn.compact
    def _forward(self, images: jax.Array, train: bool, head: bool) -> Any:
        self._check_images(images)
        x = self._apply_stem(images.astype(self.dtype), train)
        maps = {"stem": x}
        x = self._apply_stem_pool(x, train)
        for stage in range(len(self.stage_sizes)):
            x = self._apply_stage(x, stage, train)
            maps[f"stage{stage + 1}"] = x
        if self.version == "v2":
            x = maps[f"stage{len(self.stage_sizes)}"] = self._norm_relu("norm", x, train)
        if not head:
            return maps
        x = global_mean(x)
        if self.dropout:
            x = nn.Dropout(self.dropout)(x, deterministic=not train)
        if self.num_classes:
            dtype = jnp.promote_types(x.dtype, self.param_dtype)
            dense = nn.Dense(
                self.num_classes,
                dtype=dtype,
                param_dtype=self.param_dtype,
                kernel_init=linear_uniform,
                name="fc",
            )
            x = dense(x)
        return x

    def _apply_stem(self, x: jax.Array, train: bool) -> jax.Array:
        width = self._stem_channels
        if self.stem == "deep":
            # Numbered as in timm, where ReLUs take numbers too.
            x = self._conv(features=width // 2, size=3, stride=2, name="conv1_0")(x)
            x = self._norm_relu("conv1_1", x, train)
            x = self._conv(features=width // 2, size=3, name="conv1_3")(x)
            x = self._norm_relu("conv1_4", x, train)
            x = self._conv(features=width, size=3, name="conv1_6")(x)
        elif self.stem == "small":
            x = self._conv(features=width, size=3, name="conv1")(x)
        else:
            x = self._conv(features=width, size=7, stride=2, name="conv1")(x)
        return x if self.version == "v2" else self._norm_relu("bn1", x, train)

    def _apply_stem_pool(self, x: jax.Array, train: bool) -> jax.Array:
        if self.pool_after_stem == "max":
            return max_pool(x)
        if self.pool_after_stem == "conv":
            x = self._conv(features=self._stem_channels, size=3, stride=2, name="maxpool_0")(x)
            return self._norm_relu("maxpool_1", x, train)
        return x

    def _apply_stage(self, x: jax.Array, stage: int, train: bool) -> jax.Array:
        size = self.stage_sizes[stage]
        rates = [self._drop_rate(stage, number) for number in range(size)]
        x = self._block(stage, 0)(x, train=train, drop_rate=rates[0])
        if self.scan_blocks and size > 2:
            return self._scan_stage(x, stage, train, rates)
        for number in range(1, size):
            x = self._block(stage, number)(x, train=train, drop_rate=rates[number])
        return x

    def _scan_stage(
        self, x: jax.Array, stage: int, train: bool, rates: Sequence[float]
    ) -> jax.Array:
        # The first block is apart: its stride or its input channels differ.
        blocks = [self._block(stage, number) for number in range(1, self.stage_sizes[stage])]
        return scan_blocks(blocks, x, train=train, drop_rates=rates[1:])

    def _drop_rate(self, stage: int, number: int) -> float:
        before = sum(self.stage_sizes[:stage])
        return self.stochastic_depth * (before + number + 1) / sum(self.stage_sizes)

    def _block(self, stage: int, number: int) -> ResidualBlock:
        return BLOCKS[self.block](
            features=self.width * 2**stage,
            stride=2 if stage and not number else 1,
            version=self.version,
            shortcut=self.shortcut,
            residual=self.residual,
            groups=self.groups,
            width_per_group=self.width_per_group,
            se_ratio=self.se_ratio,
            zero_init=self.zero_init,
            conv=self._conv,
            norm=self._norm,
            se=functools.partial(SqueezeExcite, **self._dtypes),
            name=f"layer{stage + 1}_{number}",
        )

    @property
    def _dtypes(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    @property
    def _conv(self) -> Any:
        return functools.partial(Conv, use_bias=self.conv_bias, **self._dtypes)

    @property
    def _norm(self) -> Any:
        if self.norm == "none":
            return None
        if self.norm == "group":
            kind, fields = GroupNorm, {"groups": self.norm_channel_groups}
        else:
            kind, fields = (
                BatchNorm,
                {
                    "momentum": self.norm_momentum,
                    "group_size": self.norm_group_size,
                    "axis_name": self.axis_name,
                },
            )
        return functools.partial(kind, epsilon=self.norm_epsilon, **fields, **self._dtypes)

    def _norm_relu(self, name: str, x: jax.Array, train: bool) -> jax.Array:
        norm = self._norm
        return nn.relu(x if norm is None else norm(name=name)(x, train=train))

    def _check_images(self, images: jax.Array) -> None:
        smallest = self.smallest_image()
        if images.ndim != 4:
            raise UserError(f"images of shape {images.shape}: must be [N, H, W, C], channels last")
        if min(images.shape[1:3]) < smallest:
            height, width = images.shape[1:3]
            raise UserError(
                f"images of {height}x{width}: too small for this network's strides, which need at"
                f" least {smallest}x{smallest}; enlarge them (data.image_size) or set model.stem ="
                " 'small'"
            )
