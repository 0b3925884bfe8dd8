"""The peer in stock Flax: a ResNet of `flax.linen` layers and the plainest training step, for
timing only.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.contest import Step, network


class Block(nn.Module):
    """A basic or bottleneck block, stride in the 3x3 (v1.5)."""

    features: int
    stride: int
    bottleneck: bool
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train):
        def conv_norm(x, features, size, stride=1):
            pad = size // 2
            padding = ((pad, pad), (pad, pad))
            x = nn.Conv(
                features, (size, size), (stride, stride), padding, use_bias=False, dtype=self.dtype
            )(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x)

        if self.bottleneck:
            y = nn.relu(conv_norm(x, self.features, 1))
            y = nn.relu(conv_norm(y, self.features, 3, self.stride))
            y = conv_norm(y, self.features * 4, 1)
        else:
            y = nn.relu(conv_norm(x, self.features, 3, self.stride))
            y = conv_norm(y, self.features, 3)
        if x.shape != y.shape:
            x = conv_norm(x, y.shape[-1], 1, self.stride)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A network of such blocks, [N, H, W, C] -> [N, num_classes]; convolutions and normalisation in
    `dtype`.
    """

    stage_sizes: Sequence[int]
    bottleneck: bool
    small_stem: bool
    stem_width: int
    num_classes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train):
        size, stride, pad = (3, 1, 1) if self.small_stem else (7, 2, 3)
        x = nn.Conv(
            self.stem_width,
            (size, size),
            (stride, stride),
            ((pad, pad), (pad, pad)),
            use_bias=False,
            dtype=self.dtype,
        )(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stage_sizes):
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                x = Block(64 * 2**stage, stride, self.bottleneck, self.dtype)(x, train)
        return nn.Dense(self.num_classes)(jnp.mean(x, (1, 2), dtype=jnp.float32))


def make_model(name: str, num_classes: int, dtype: str = "float32") -> ResNet:
    """The peer of `contest.network(name)`; of its fields, those of stem and stages count."""
    ours = network(name)
    bottleneck, small_stem = ours.block == "bottleneck", ours.stem == "small"
    stem_width = ours.stem_width or ours.width
    return ResNet(ours.stage_sizes, bottleneck, small_stem, stem_width, num_classes, dtype)


def make_step(
    name: str, images: np.ndarray, labels: np.ndarray, num_classes: int, *, dtype: str = "float32"
) -> Step:
    """See `contest`; `dtype` is that of convolutions and normalisation."""
    model = make_model(name, num_classes, dtype)
    images, labels = jax.device_put((images, labels))
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9))
    state = {"variables": variables, "optimizer": optimizer.init(variables["params"])}

    @partial(jax.jit, donate_argnums=0)
    def step(state, images, labels):
        def objective(params):
            variables = {**state["variables"], "params": params}
            logits, changes = model.apply(variables, images, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), changes["batch_stats"]

        params = state["variables"]["params"]
        (loss, batch_stats), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        updates, optimizer_state = optimizer.update(gradients, state["optimizer"], params)
        variables = {"params": optax.apply_updates(params, updates), "batch_stats": batch_stats}
        return {"variables": variables, "optimizer": optimizer_state}, loss

    def run() -> jax.Array:
        nonlocal state
        state, loss = step(state, images, labels)
        return loss

    return run
