"""Channel gates at the end of a residual branch: squeeze-and-excitation and ECA.

A gate is computed in its parameters' dtype from the mean over the map to the sigmoid: it costs
nothing beside the map, and so its gradients are added over devices without rounding to bfloat16.
"""

import math
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.layers import he_fan_out
from resnet_jax.models.pools import global_mean

if TYPE_CHECKING:
    from jaxtyping import Float


class SqueezeExcite(nn.Module):
    """Channel gates (Hu et al. 2018, "Squeeze-and-Excitation Networks", section 3).

    [N, H, W, C] -> the same: x * sigmoid(fc2(relu(fc1(mean over H and W)))). The bottleneck has
    `ratio` * C channels, rounded to the nearest multiple of 8 and at least 8, as timm rounds.
    """

    ratio: float = 1 / 16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: "Float[jax.Array, 'n h w c']") -> "Float[jax.Array, 'n h w c']":
        channels = x.shape[-1]
        squeezed = max(8, int(channels * self.ratio + 4) // 8 * 8)
        dtypes = {"dtype": self.param_dtype, "param_dtype": self.param_dtype}
        y = global_mean(x)
        y = nn.relu(nn.Dense(squeezed, kernel_init=he_fan_out, name="fc1", **dtypes)(y))
        y = nn.Dense(channels, kernel_init=he_fan_out, name="fc2", **dtypes)(y)
        return x * nn.sigmoid(y)[:, None, None].astype(x.dtype)


class EfficientChannelAttention(nn.Module):
    """Channel gates of neighbouring channels (Wang et al. 2020, "ECA-Net", section 3.3).

    [N, H, W, C] -> the same: x * sigmoid(a 1-D convolution over the channels of the mean over H and
    W), whose kernel is as long as (log2 C + 1) / 2, rounded down, then up to an odd number, and at
    least 3.
    """

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: "Float[jax.Array, 'n h w c']") -> "Float[jax.Array, 'n h w c']":
        size = max(3, int((math.log2(x.shape[-1]) + 1) / 2) // 2 * 2 + 1)
        dtypes = {"dtype": self.param_dtype, "param_dtype": self.param_dtype}
        conv = nn.Conv(1, (size,), use_bias=False, name="conv", **dtypes)
        y = conv(global_mean(x)[..., None])
        return x * nn.sigmoid(y[..., 0])[:, None, None].astype(x.dtype)
