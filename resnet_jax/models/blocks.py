"""Residual blocks: basic and bottleneck, versions v1, v1.5 and v2, and the shortcuts A to D."""

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax

from resnet_jax.errors import UserError
from resnet_jax.models.checks import (
    REQUIRED,
    check_divides,
    check_shared,
    documented,
    field,
    settle,
)
from resnet_jax.models.gates import EfficientChannelAttention, SqueezeExcite
from resnet_jax.models.layers import (
    NORMS,
    Conv,
    Initializer,
    ModuleFactory,
    Norm,
    drop_branch,
    widen_identity,
)
from resnet_jax.models.pools import ANTI_ALIAS, average_ahead, average_pool
from resnet_jax.ops.relu import relu

if TYPE_CHECKING:
    from jaxtyping import Float


class BlockFields(nn.Module, kw_only=True):
    """What a network and its blocks share: these fields, and the layers that follow from them."""

    version: str = field(
        "v1.5",
        "v1 (stride in a bottleneck's first 1x1), v1.5 (in its 3x3) or v2 (pre-activation)",
        "v1.5 is torchvision's; in v2 (He et al. 2016) normalisation and ReLU come before each"
        " convolution, a projection reads the activated input and an identity the raw one",
        choices=("v1", "v1.5", "v2"),
    )
    shortcut: str = field(
        "B",
        "A or A_pool padded identity, B projection where the shape changes, C everywhere, D after a"
        " pool",
        "a stride takes every second pixel in A and averages 2x2 in A_pool; D: He et al. 2019",
        choices=("A", "A_pool", "B", "C", "D"),
    )
    residual: bool = field(True, "False for a plain net, without shortcuts (He et al. 2015)")
    groups: int = field(1, "groups of a bottleneck's 3x3", at_least=1)
    width_per_group: int = field(
        64,
        "channels of a group where features = 64",
        "in all features * width_per_group / 64 * groups (Xie et al. 2017)",
        at_least=1,
    )
    reduce_first: int = field(1, "divides the features of a block's first convolution", at_least=1)
    shortcut_size: int = field(1, "kernel of a projection that strides", choices=(1, 3))
    anti_alias: str = field(
        "none",
        "instead of a stride: average 2x2, or blur",
        "timm's resnetaa and resnetblur: the convolution takes every pixel, and the pool, or Zhang"
        " 2019's blur, which strides, follows its ReLU; the stem's pool changes likewise",
        choices=(*ANTI_ALIAS, "none"),
    )
    eca: bool = field(False, "efficient channel attention at each branch's end (Wang et al. 2020)")
    se_ratio: float = field(
        0.0, "squeeze-and-excitation's share of channels; 0: none", at_least=0, at_most=1
    )
    zero_init: bool = field(
        True,
        "whether residual branches start at zero",
        "by the last normalisation's scale (Goyal et al. 2017), or by the last kernel where no"
        " normalisation follows it; not in plain nets, which it would kill",
    )
    norm: str | ModuleFactory | None = field(
        "batch",
        "normalisation: batch, group or none",
        "or a factory called with scale_init, dtype, param_dtype and name, whose module is called"
        " with (x, train=train)",
        choices=(*NORMS, "none"),
        optional=True,
    )
    norm_momentum: float = field(0.9, "share of old running statistics kept", at_least=0, below=1)
    norm_epsilon: float = field(1e-5, "added to the variance", above=0)
    norm_group_size: int | None = field(
        None, "images that share statistics; None: the global batch", at_least=1
    )
    norm_frozen: bool = field(
        False, "whether BatchNorm's running statistics normalise in training too, and stay"
    )
    norm_channel_groups: int = field(32, "channel groups of norm = group", at_least=1)
    axis_name: Any = field(None, "mapped axis of statistics: see `layers.BatchNorm`", recipe=False)
    conv: ModuleFactory = field(Conv, "factory called as `layers.Conv`", recipe=False)
    conv_bias: bool = field(False, "whether convolutions have a bias")
    float32_sums: bool = field(
        True,
        "whether the gradients of convolutions' kernels are added over devices in float32",
        "that is, in `param_dtype`; False: in `dtype`, which in bfloat16 is half the bytes and an"
        " error of the sum of 0.4 % at 8 devices and 1.9 % at 256, instead of 0.2 %",
    )
    standardize: bool = field(False, "weight standardisation (Qiao et al. 2019)")
    dtype: Any = field(
        "float32",
        "of the computation, a dtype or its name",
        "statistics, pooling and a network's classifier are float32 or better",
        recipe=False,
    )
    param_dtype: Any = field("float32", "of the parameters", recipe=False)

    @property
    def norm_kind(self) -> Norm | None:
        """The normalisation's layer and which fields it takes; None where there is none."""
        if self.norm in (None, "none"):
            return None
        return NORMS[self.norm] if isinstance(self.norm, str) else Norm(self.norm, {})

    def _convolve(self, x: jax.Array, **fields: Any) -> jax.Array:
        # What is off is left out, for factories of the user's own that do not know it.
        fields |= {"use_bias": True} if self.conv_bias else {}
        fields |= {} if self.float32_sums else {"float32_sums": False}
        fields |= {"standardize": True} if self.standardize else {}
        return self.conv(**self._dtypes, **fields)(x)

    def _normalise(
        self, x: jax.Array, name: str, train: bool, scale_init: Initializer = nn.initializers.ones
    ) -> jax.Array:
        kind = self.norm_kind
        if kind is None:
            return x
        given = {theirs: getattr(self, ours) for ours, theirs in kind.fields.items()}
        layer = kind.factory(scale_init=scale_init, name=name, **self._dtypes, **given)
        return layer(x, train=train)

    @property
    def _dtypes(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


@documented
class ResidualBlock(BlockFields):
    """What every block does; `BasicBlock` and `BottleneckBlock` say which convolutions it has.

    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), out_features].

    Raises:
      UserError: at construction, for an illegal or contradictory field.
    """

    features: int = field(REQUIRED, "width; a bottleneck block puts out 4 times it", at_least=1)
    stride: int = field(1, "of the block", at_least=1)
    dilation: int = field(1, "of the 3x3 convolutions", at_least=1)
    first_dilation: int | None = field(
        None, "of the 3x3 that has the stride; None: as dilation", at_least=1
    )
    se: ModuleFactory = field(
        SqueezeExcite, "factory called as `gates.SqueezeExcite`", recipe=False
    )

    expansion = 1  # channels of the output, in `features`

    def __post_init__(self) -> None:
        room = type(self).__name__
        settle(self, room)
        check_shared(self, room)
        self.check_widths(self, self.features, room)
        super().__post_init__()

    @staticmethod
    def check_widths(fields: BlockFields, features: int, room: str) -> None:
        """Raises `UserError` where such blocks cannot have `features`; `room`: see `settle`."""

    @property
    def out_features(self) -> int:
        """Channels of the output."""
        return self.expansion * self.features

    @nn.nowrap
    def convolutions(self) -> tuple[dict[str, Any], ...]:
        """Returns the keyword arguments of the branch's convolutions, in order."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self,
        x: "Float[jax.Array, 'n h w c']",
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
    ) -> "Float[jax.Array, 'n h_out w_out f']":
        """Applies the block; `train` drops its branch at `drop_rate` (rng "dropout")."""
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        before = self.version == "v2"
        specs = self.convolutions()
        y = activated = x
        smooth = None
        for number, spec in enumerate(specs, 1):
            last = number == len(specs)
            zero = self.zero_init and self.residual and last
            if before:
                y = relu(self._normalise(y, f"bn{number}", train))
            if number == 1:
                activated = y
            if smooth is not None:
                y = ANTI_ALIAS[self.anti_alias](y, smooth)
            spec, smooth = self.unaliased(spec)
            if zero and (before or self.norm_kind is None):
                spec = spec | {"kernel_init": zeros}
            y = self._convolve(y, **spec, name=f"conv{number}")
            if not before:
                y = self._normalise(y, f"bn{number}", train, zeros if zero else ones)
                y = y if last else relu(y)
        if self.se_ratio:
            y = self.se(ratio=self.se_ratio, name="se", param_dtype=self.param_dtype)(y)
        if self.eca:
            y = EfficientChannelAttention(name="se", param_dtype=self.param_dtype)(y)
        if self.residual:
            if train and not (isinstance(drop_rate, float) and drop_rate == 0):
                y = drop_branch(y, drop_rate, self.make_rng("dropout"))
            y = y + self._shortcut(x, activated, train)
        return y if before else relu(y, of_sum=True)

    @nn.nowrap
    def _dilated(self, first: bool = False) -> dict[str, int]:
        rate = (self.first_dilation or self.dilation) if first else self.dilation
        return {} if rate == 1 else {"dilation": rate}

    @nn.nowrap
    def unaliased(self, spec: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
        """Takes the stride of the pool or blur after a convolution from its arguments; or None."""
        changes = self.stride != 1 or (self.first_dilation or self.dilation) != self.dilation
        if self.anti_alias == "none" or not changes or "stride" not in spec:
            return spec, None
        return spec | {"stride": 1}, spec["stride"]

    def _shortcut(self, x: jax.Array, activated: jax.Array, train: bool) -> jax.Array:
        changes = self.stride != 1 or x.shape[-1] != self.out_features
        if self.shortcut in ("A", "A_pool"):
            return widen_identity(x, self.out_features, self.stride, pool=self.shortcut == "A_pool")
        if not changes and self.shortcut != "C":
            return x
        # The layers are numbered as in torchvision and, for D, whose first is the pool, as in timm.
        first, spec = 0, {"features": self.out_features, "stride": self.stride}
        if self.shortcut == "D":
            first, spec = 1, {"features": self.out_features}
            if self.stride != 1:
                activated = average_pool(activated, self.stride)
            elif self.dilation != 1:
                activated = average_ahead(activated)
        elif self.shortcut_size != 1 and (self.stride != 1 or self.dilation != 1):
            spec |= {"size": self.shortcut_size, **self._dilated(first=True)}
        y = self._convolve(activated, **spec, name=f"downsample_{first}")
        return y if self.version == "v2" else self._normalise(y, f"downsample_{first + 1}", train)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al. 2015, figure 5, left)."""

    @staticmethod
    def check_widths(fields: BlockFields, features: int, room: str) -> None:
        check_divides(fields.reduce_first, features, f"{room}.reduce_first")
        for name, neutral in (("groups", 1), ("width_per_group", 64)):
            if getattr(fields, name) != neutral:
                raise UserError(
                    f"{room}.{name} = {getattr(fields, name)}: basic blocks have no groups; set it"
                    f" to {neutral} or take bottleneck blocks"
                )

    @nn.nowrap
    def convolutions(self) -> tuple[dict[str, Any], ...]:
        features, first = self.features, self.features // self.reduce_first
        return (
            {"features": first, "size": 3, "stride": self.stride, **self._dilated(first=True)},
            {"features": features, "size": 3, **self._dilated()},
        )


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al. 2015, figure 5, right); with groups, ResNeXt's."""

    expansion = 4

    @staticmethod
    def check_widths(fields: BlockFields, features: int, room: str) -> None:
        groups, per_group = fields.groups, fields.width_per_group
        if features * per_group // 64 < 1:
            raise UserError(
                f"{room}.width_per_group = {per_group}: leaves no channel a group where features ="
                f" {features} (times it / 64); choose at least {-(-64 // features)}"
            )
        if groups > 1 and features * per_group % 64:
            raise UserError(
                f"{room}.groups = {groups}: does not divide the channels, since features *"
                f" width_per_group / 64 = {features} * {per_group} / 64 is no whole number; choose"
                " a width_per_group that makes it one"
            )
        width = features * per_group // 64 * groups
        check_divides(fields.reduce_first, width, f"{room}.reduce_first")
        check_divides(groups, width // fields.reduce_first, f"{room}.groups")

    @nn.nowrap
    def convolutions(self) -> tuple[dict[str, Any], ...]:
        width = self.features * self.width_per_group // 64 * self.groups
        first = {"features": width // self.reduce_first}
        second = {"features": width, "size": 3, "groups": self.groups, **self._dilated(first=True)}
        (first if self.version == "v1" else second)["stride"] = self.stride
        return first, second, {"features": self.out_features}


BLOCKS = {"basic": BasicBlock, "bottleneck": BottleneckBlock}
