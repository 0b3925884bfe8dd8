"""The layers of a residual network: convolution, normalisation, identities, dropped branches."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import max_dim

from resnet_jax.errors import UserError
from resnet_jax.models.checks import check_divides
from resnet_jax.models.pools import average_pool
from resnet_jax.ops.batch_norm import batch_normalize
from resnet_jax.ops.conv2d import conv2d

if TYPE_CHECKING:
    from jaxtyping import Float

Initializer = Callable[..., jax.Array]
ModuleFactory = Callable[..., nn.Module]

# He et al. 2015, "Delving Deep into Rectifiers", section 2.2, backward form: variance 2 / fan-out.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Uniform in +-1/sqrt(fan-in): what `torch.nn.Linear` does, and so torchvision's classifier.
linear_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nn.Module):
    """A square convolution, padded by dilation * (size - 1) // 2 on every side.

    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), features], in `dtype`, for odd `size`.
    Parameters: "kernel" [size, size, C / groups, features] and, with `use_bias`, "bias" [features].
    With `float32_sums` the kernel's gradient is added over devices in `param_dtype`, else in
    `dtype`.
    With `standardize`, the kernel of each feature is brought to mean 0 and variance 1 before its
    use (Qiao et al. 2019, "Micro-Batch Training", section 3).
    """

    features: int
    size: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    use_bias: bool = False
    float32_sums: bool = True
    standardize: bool = False
    kernel_init: Initializer = he_fan_out
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: "Float[jax.Array, 'n h w c']") -> "Float[jax.Array, 'n h_out w_out f']":
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        if self.standardize:
            kernel = standardize(kernel)
        if not self.float32_sums:
            kernel = kernel.astype(self.dtype)
        pad = self.dilation * (self.size - 1) // 2
        strides, padding = (self.stride, self.stride), ((pad, pad), (pad, pad))
        x = x.astype(self.dtype)
        y = conv2d(
            x,
            kernel,
            strides=strides,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            y = y + bias.astype(self.dtype)
        return y


def standardize(kernel: jax.Array) -> jax.Array:
    """Brings the kernel [kh, kw, C / groups, F] of each feature to mean 0 and variance 1."""
    wide = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    centred = wide - jnp.mean(wide, (0, 1, 2))
    # The epsilon is that of BiT's nets in timm.
    inverse = lax.rsqrt(jnp.mean(centred * centred, (0, 1, 2)) + 1e-8)
    return (centred * inverse).astype(kernel.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015), its scope counted in images, not devices.

    In training, with mean and biased variance over the images of a group and over all positions,

        y = (x - mean) / sqrt(variance + epsilon) * scale + bias,

    and the running statistics move to momentum * old + (1 - momentum) * new. The new running
    variance is the unbiased one, n / (n - 1) times the variance that normalised, as PyTorch keeps
    it; `momentum` is the share of the OLD value, which PyTorch calls 1 - momentum. With
    `train=False` the running statistics normalise.

    Statistics are taken in float32 or better in one reading of x, about the running mean: the
    rounding error of the variance, relative, is about 1e-7 * ((mean - running mean) / deviation)^2.
    In the first steps, where the running mean is far off, that is what moments about zero have in
    every step. On the CPU each image's moments are first taken about its own central pixel, so that
    what one image adds is rounded as if its mean were near.

    Attributes:
      momentum: share of the old running statistics kept at each step.
      epsilon: added to the variance.
      group_size: images per group of consecutive ones that share statistics; None means the whole
        batch. The running statistics take the mean over the groups.
      frozen: whether the running statistics normalise in training too, and stay as they are.
      axis_name: the mapped axis of the caller's own `pmap` or `shard_map` to average statistics
        over. Under plain `jit` with a sharded batch leave it None: the statistics are global
        already.
      scale_init: initial "scale".
      dtype: of the output.
      param_dtype: of "scale" and "bias" [C]; the statistics "mean" and "var" [C] in "batch_stats"
        have it or float32, whichever is wider.

    Raises:
      UserError: a training batch does not divide into groups of `group_size`.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    group_size: int | None = None
    frozen: bool = False
    axis_name: str | Sequence[str] | None = None
    scale_init: Initializer = nn.initializers.ones
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: "Float[jax.Array, 'n h w c']", train: bool
    ) -> "Float[jax.Array, 'n h w c']":
        """Normalises x."""
        channels = x.shape[-1:]
        stats_dtype = jnp.promote_types(self.param_dtype, jnp.float32)
        scale = self.param("scale", self.scale_init, channels, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, stats_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, stats_dtype)

        x = x.astype(jnp.promote_types(x.dtype, stats_dtype))
        if not train or self.frozen:
            factor = lax.rsqrt(running_var.value + self.epsilon) * scale
            return ((x - running_mean.value) * factor + bias).astype(self.dtype)
        about = lax.stop_gradient(running_mean.value)
        # `init` may run outside the mapped axis, and keeps no statistics.
        axis_name = None if self.is_initializing() else self.axis_name
        groups = self._groups(x.shape[0])
        y, mean, var = batch_normalize(x, scale, bias, about, groups, self.epsilon, axis_name)
        if not self.is_initializing():
            count = x.size // mean.size
            if axis_name is not None:
                count *= lax.axis_size(axis_name)
            unbiased = jnp.mean(var, 0) * (count / max_dim(count - 1, 1))
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * jnp.mean(mean, 0)
            running_var.value = keep * running_var.value + (1 - keep) * unbiased
        return y.astype(self.dtype)

    def _groups(self, images: int) -> int:
        """Returns the number of groups in a batch."""
        if self.group_size is None:
            return 1
        group = self.group_size
        if images % group:
            raise UserError(
                f"model.norm_group_size = {group} does not divide a batch of {images} images; "
                "choose one that does, or None for statistics over the whole batch"
            )
        return images // group


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018) of each image's channels in `groups` groups.

    [N, H, W, C] -> the same shape in `dtype`. Parameters "scale" and "bias" [C]; statistics in
    float32 or better.
    """

    groups: int = 32
    epsilon: float = 1e-5
    scale_init: Initializer = nn.initializers.ones
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: "Float[jax.Array, 'n h w c']", train: bool = False
    ) -> "Float[jax.Array, 'n h w c']":
        del train
        channels = x.shape[-1]
        check_divides(self.groups, channels, "norm_channel_groups")
        scale = self.param("scale", self.scale_init, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        stats_dtype = jnp.promote_types(x.dtype, jnp.promote_types(self.param_dtype, jnp.float32))
        grouped = x.astype(stats_dtype).reshape(*x.shape[:-1], self.groups, channels // self.groups)
        mean = jnp.mean(grouped, (1, 2, 4), keepdims=True)
        centred = grouped - mean
        var = jnp.mean(centred * centred, (1, 2, 4), keepdims=True)
        y = (centred * lax.rsqrt(var + self.epsilon)).reshape(x.shape) * scale + bias
        return y.astype(self.dtype)


class Norm(NamedTuple):
    """A normalisation: its layer, and the network's fields that it takes, as it calls them."""

    factory: ModuleFactory
    fields: Mapping[str, str]


NORMS: Mapping[str, Norm] = {
    "batch": Norm(
        BatchNorm,
        {
            "norm_momentum": "momentum",
            "norm_epsilon": "epsilon",
            "norm_group_size": "group_size",
            "norm_frozen": "frozen",
            "axis_name": "axis_name",
        },
    ),
    "group": Norm(GroupNorm, {"norm_channel_groups": "groups", "norm_epsilon": "epsilon"}),
}


def widen_identity(
    x: "Float[jax.Array, 'n h w c']", features: int, stride: int, *, pool: bool = False
) -> "Float[jax.Array, 'n h_out w_out f']":
    """Option A of He et al. 2015: -> [N, ceil(H / stride), ceil(W / stride), features].

    Args:
      x: the block's input.
      features: channels wanted, at least C; the added ones come last and are zero.
      stride: step between the pixels taken.
      pool: whether to average `stride` x `stride` windows instead of taking one pixel of each.
    """
    if features < x.shape[-1]:
        raise UserError(
            f"shortcut = {'A_pool' if pool else 'A'!r}: cannot go from {x.shape[-1]} channels down"
            f" to {features}; choose shortcut = 'B'"
        )
    if stride != 1:
        strides = (1, stride, stride, 1)
        x = average_pool(x, stride) if pool else lax.slice(x, (0,) * 4, x.shape, strides)
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


def drop_branch(
    branch: "Float[jax.Array, 'n h w c']", rate: float | jax.Array, key: jax.Array
) -> "Float[jax.Array, 'n h w c']":
    """Drops the branch of each image at a rate, and scales the others up.

    Huang et al. 2016, "Deep Networks with Stochastic Depth", section 3, scaled in training rather
    than in testing so that the network without it is the plain one.
    """
    kept = jax.random.bernoulli(key, 1 - rate, (branch.shape[0], 1, 1, 1))
    return jnp.where(kept, branch / jnp.asarray(1 - rate, branch.dtype), 0)
