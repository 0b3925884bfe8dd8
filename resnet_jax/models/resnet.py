"""The residual network: one module whose fields make every variant of the family."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.errors import UserError
from resnet_jax.models.blocks import BLOCKS, BlockFields, ResidualBlock
from resnet_jax.models.checks import check_shared, documented, field, names_of, settle
from resnet_jax.models.layers import linear_uniform
from resnet_jax.models.pools import average_pool, blur, global_mean, max_pool_zeros
from resnet_jax.models.scan import scan_blocks
from resnet_jax.ops.max_pool import max_pool
from resnet_jax.ops.relu import relu

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


class FeatureInfo(NamedTuple):
    """A feature map's channels and its stride: image pixels from one position to the next."""

    channels: int
    stride: int


@documented
class ResNet(BlockFields):
    """A residual network for images (He et al. 2015, "Deep Residual Learning") and its descendants.

    Images [N, H, W, C] with any C -> logits [N, num_classes], in float32, or in float64 where
    `dtype` or `param_dtype` is. `method="features"` gives the maps instead. Variables: "params",
    named as in torchvision with "layer1.0" written "layer1_0"; "batch_stats" where `norm="batch"`.
    The rng "dropout" is needed in training when `dropout` or `stochastic_depth` is on.

    Raises:
      UserError: at construction, for an illegal or contradictory field; at the call, for images too
        small.
    """

    stage_sizes: Sequence[int] = field(
        (3, 4, 6, 3),
        "blocks of each stage",
        "every stage but the first halves the map and doubles the features",
        at_least=1,
    )
    block: str = field("bottleneck", "kind of residual block", choices=tuple(BLOCKS))
    stem: str = field(
        "imagenet",
        "imagenet 7x7/2, small 3x3/1, deep or tiered three 3x3",
        "the first of three has stride 2; the first two have half the channels (deep; He et al."
        " 2019, ResNet-C), or 3/8 and half of them (tiered; timm)",
        choices=("imagenet", "small", "deep", "tiered"),
    )
    stem_width: int | None = field(None, "channels after the stem; None: as width", at_least=1)
    stem_pool: str | None = field(
        None,
        "after the stem: max 3x3/2, max_zeros (padded with zeros), conv 3x3/2 or none",
        "None: none after a small stem, max after the others; conv is from Bello et al. 2021,"
        " max_zeros from Kolesnikov et al. 2020, BiT",
        choices=("max", "max_zeros", "conv", "none"),
    )
    width: int = field(64, "features of the first stage; each later stage doubles them", at_least=1)
    num_classes: int = field(1000, "classes; 0: pooled features [N, channels]", at_least=0)
    stochastic_depth: float = field(
        0.0,
        "rate of dropping the last block's branch",
        "block l of L drops its own with l / L of it (Huang et al. 2016)",
        at_least=0,
        below=1,
    )
    dropout: float = field(
        0.0, "rate of dropping pooled features before the head", at_least=0, below=1
    )
    output_stride: int | None = field(
        None,
        "stride of the last map, such as 16 or 8; None: as it comes",
        "stages beyond it have dilation in place of their stride, as torchvision's"
        " `replace_stride_with_dilation` and timm's `output_stride` have it",
        at_least=1,
    )
    remat: str = field(
        "none",
        "what the backward pass computes again instead of keeping it: none, block or stage",
        "the maps between blocks, or between stages, are all that is kept",
        choices=("none", "block", "stage"),
    )
    scan_blocks: bool = field(
        False,
        "compile equal blocks once, for very deep nets",
        "the parameters' names and shapes and the function are the same; the draws of initial"
        " values and of dropped branches are others, and intermediates inside are not recorded",
    )

    def __post_init__(self) -> None:
        settle(self, "model")
        check_shared(self, "model")
        BLOCKS[self.block].check_widths(self, self.width, "model")
        self._check_fields()
        super().__post_init__()

    def __call__(
        self, images: "Shaped[jax.Array, 'n h w c']", train: bool = False
    ) -> "Float[jax.Array, 'n k']":
        """Returns logits [N, num_classes], or pooled features where `num_classes` is 0."""
        return self._forward(images, train, head=True)

    def features(
        self, images: "Shaped[jax.Array, 'n h w c']", train: bool = False
    ) -> "dict[str, Float[jax.Array, 'n _ _ _']]":
        """Returns {"stem", "stage1" ..}: the map before the stem's pool and those after the stages.

        Each is [N, ceil(H / stride), ceil(W / stride), channels] in `dtype`, as `feature_info` says
        beforehand. A v2 net's last map has had its final normalisation and ReLU, so that its mean
        is the pooled features.
        """
        return self._forward(images, train, head=False)

    @nn.nowrap
    def feature_info(self) -> dict[str, FeatureInfo]:
        """Returns the channels and the stride of each map that `features` gives."""
        channels = self.width * BLOCKS[self.block].expansion
        stride = 1 if self.stem == "small" else 2
        info = {"stem": FeatureInfo(self.stem_channels, stride)}
        stride *= 1 if self.pool_after_stem == "none" else 2
        for stage, strides in enumerate(self._strides()):
            stride *= strides["stride"]
            info[f"stage{stage + 1}"] = FeatureInfo(channels * 2**stage, stride)
        return info

    @nn.nowrap
    def smallest_image(self) -> int:
        """Returns the smallest height and width: every stride still has two pixels to halve."""
        stride = list(self.feature_info().values())[-1].stride
        # A dilated stage smooths its map where others halve it, which takes two pixels there.
        is_dilated = self._strides()[-1]["dilation"] > 1
        return stride + 1 if self.anti_alias == "blur" and is_dilated else stride // 2 + 1

    @nn.nowrap
    def part_of(self, entry: str) -> str:
        """Returns the part, "stem", "stage1" .. "head", that has an entry of "params"."""
        if entry.startswith("layer"):
            return "stage" + entry.removeprefix("layer").split("_")[0]
        return "head" if entry in ("norm", "fc") else "stem"

    @property
    def stem_channels(self) -> int:
        """`stem_width`, with None resolved."""
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
        apply = ResNet._apply_stage
        if self.remat == "stage":
            apply = nn.remat(apply, static_argnums=(2, 3))
        for stage in range(len(self.stage_sizes)):
            x = apply(self, x, stage, train)
            maps[f"stage{stage + 1}"] = x
        if self.version == "v2":
            x = maps[f"stage{len(self.stage_sizes)}"] = relu(self._normalise(x, "norm", train))
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
        width = self.stem_channels
        if self.stem in ("deep", "tiered"):
            first = width // 2 if self.stem == "deep" else 3 * width // 8
            # Numbered as in timm, where ReLUs take numbers too.
            x = self._convolve(x, features=first, size=3, stride=2, name="conv1_0")
            x = relu(self._normalise(x, "conv1_1", train))
            x = self._convolve(x, features=width // 2, size=3, name="conv1_3")
            x = relu(self._normalise(x, "conv1_4", train))
            x = self._convolve(x, features=width, size=3, name="conv1_6")
        elif self.stem == "small":
            x = self._convolve(x, features=width, size=3, name="conv1")
        else:
            x = self._convolve(x, features=width, size=7, stride=2, name="conv1")
        return x if self.version == "v2" else relu(self._normalise(x, "bn1", train))

    def _apply_stem_pool(self, x: jax.Array, train: bool) -> jax.Array:
        if self.pool_after_stem == "max" and self.anti_alias == "average":
            return average_pool(x, 2)
        if self.pool_after_stem == "max" and self.anti_alias == "blur":
            return blur(nn.max_pool(x, (3, 3), padding="SAME"), 2)
        if self.pool_after_stem in ("max", "max_zeros"):
            return max_pool(x) if self.pool_after_stem == "max" else max_pool_zeros(x)
        if self.pool_after_stem == "conv":
            x = self._convolve(x, features=self.stem_channels, size=3, stride=2, name="maxpool_0")
            return relu(self._normalise(x, "maxpool_1", train))
        return x

    def _apply_stage(self, x: jax.Array, stage: int, train: bool) -> jax.Array:
        size = self.stage_sizes[stage]
        before, count = sum(self.stage_sizes[:stage]), sum(self.stage_sizes)
        rates = [self.stochastic_depth * (before + n + 1) / count for n in range(size)]
        blocks = [self.block_at(stage, number) for number in range(size)]
        # The first block is apart: its stride or its input channels differ.
        alone = 1 if self._scans(stage) else size
        for block, rate in zip(blocks[:alone], rates, strict=False):
            x = block(x, train, rate)
        if alone < size:
            remat = self.remat == "block"
            x = scan_blocks(blocks[1:], x, train=train, drop_rates=rates[1:], remat=remat)
        return x

    @nn.nowrap
    def _strides(self) -> list[dict[str, int]]:
        """Returns each stage's stride and dilations, as its first block takes them."""
        at = 1 if self.stem == "small" else 2
        at *= 1 if self.pool_after_stem == "none" else 2
        found, dilation = [], 1
        for stage in range(len(self.stage_sizes)):
            stride, first = 2 if stage else 1, dilation
            if self.output_stride and at * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            at *= stride
            found.append({"stride": stride, "dilation": dilation, "first_dilation": first})
        return found

    @nn.nowrap
    def _scans(self, stage: int) -> bool:
        """Whether the blocks after a stage's first are one loop."""
        return self.scan_blocks and self.stage_sizes[stage] > 2

    @nn.nowrap
    def block_at(self, stage: int, number: int) -> ResidualBlock:
        """Returns a block, both counted from 0; outside of the network's own call it is unbound."""
        strides = self._strides()[stage]
        block = BLOCKS[self.block]
        # A scan computes its blocks again itself.
        if self.remat == "block" and not (self._scans(stage) and number):
            block = nn.remat(block, static_argnums=(2, 3))
        return block(
            features=self.width * 2**stage,
            **(strides if number == 0 else {"dilation": strides["dilation"]}),
            name=f"layer{stage + 1}_{number}",
            **{name: getattr(self, name) for name in names_of(BlockFields)},
        )

    @nn.nowrap
    def _check_fields(self) -> None:
        if not self.stage_sizes:
            raise UserError("model.stage_sizes = (): must name at least one stage")
        stem, out = self.stem_channels, self.feature_info()["stage1"].channels
        if self.residual and self.shortcut in ("A", "A_pool") and stem > out:
            raise UserError(
                f"model.shortcut = {self.shortcut!r}: cannot go from the stem's {stem} channels"
                f" down to {out}; set model.stem_width <= {out} or model.shortcut = 'B'"
            )
        if self.stochastic_depth and not self.residual:
            raise UserError(
                f"model.stochastic_depth = {self.stochastic_depth}: a plain net has no shortcut"
                " past a dropped branch; set it to 0 or model.residual = True"
            )
        for name, parts in (("deep", 2), ("tiered", 8)):
            if self.stem == name and stem % parts:
                raise UserError(
                    f"model.stem_width = {stem}: a {name} stem divides it by {parts}; choose a"
                    f" multiple of {parts}"
                )
        last = self.feature_info()[f"stage{len(self.stage_sizes)}"].stride
        if self.output_stride not in (None, last):
            raise UserError(
                f"model.output_stride = {self.output_stride}: this network's last map cannot have"
                f" that stride, and would have {last}; choose that"
            )
        if self.norm == "group":
            self._check_channel_groups()

    @nn.nowrap
    def _check_channel_groups(self) -> None:
        names = ("groups", "width_per_group", "reduce_first")
        shared = {name: getattr(self, name) for name in names}
        # A tiered stem's first two have 3/8 and half of its channels.
        parts = {"deep": 2, "tiered": 8}.get(self.stem, 1)
        widths = [("the stem", self.stem_channels // parts)]
        for stage in range(len(self.stage_sizes)):
            block = BLOCKS[self.block](self.width * 2**stage, **shared, parent=None)
            widths += [(f"stage {stage + 1}", each["features"]) for each in block.convolutions()]
        for where, channels in widths:
            if channels % self.norm_channel_groups:
                raise UserError(
                    f"model.norm_channel_groups = {self.norm_channel_groups}: does not divide the"
                    f" {channels} channels of {where}; choose a divisor of {channels}"
                )

    @nn.nowrap
    def _check_images(self, images: jax.Array) -> None:
        if images.ndim != 4:
            raise UserError(f"images of shape {images.shape}: must be [N, H, W, C], channels last")
        _, height, width, channels = images.shape
        smallest = self.smallest_image()
        if height in (1, 3) and channels > 4 and (width == channels or height < smallest):
            raise UserError(
                f"images of shape {images.shape}: channels come last here, [N, H, W, C], and these"
                " have them first, it seems; transpose by (0, 2, 3, 1)"
            )
        # Under `jax.export` a size may be left open.
        if any(isinstance(size, int) and size < smallest for size in (height, width)):
            raise UserError(
                f"images of {height}x{width}: too small for this network's strides, which need at"
                f" least {smallest}x{smallest}; enlarge them (data.image_size) or set model.stem ="
                " 'small'"
            )
