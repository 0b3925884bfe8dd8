"""The peer in stock Flax: a ResNet of `flax.linen` layers and the plainest training step."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.harness import Array, Step, network


class ConvNorm(nn.Module):
    """A convolution and BatchNorm, computed in `dtype`."""

    features: int
    size: int
    stride: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train):
        size, stride, pad = ((n, n) for n in (self.size, self.stride, self.size // 2))
        x = nn.Conv(self.features, size, stride, (pad, pad), use_bias=False, dtype=self.dtype)(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x)


class ResNet(nn.Module):
    """Basic or bottleneck blocks, stride in the 3x3 (v1.5); [N, H, W, C] -> [N, num_classes]."""

    stage_sizes: Sequence[int]
    bottleneck: bool
    small_stem: bool
    stem_width: int
    num_classes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train):
        def conv_norm(x, *fields):
            return ConvNorm(*fields, dtype=self.dtype)(x, train)

        x = nn.relu(conv_norm(x, self.stem_width, *((3, 1) if self.small_stem else (7, 2))))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stage_sizes):
            width = 64 * 2**stage
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                if self.bottleneck:
                    y = nn.relu(conv_norm(nn.relu(conv_norm(x, width, 1)), width, 3, stride))
                    y = conv_norm(y, 4 * width, 1)
                else:
                    y = conv_norm(nn.relu(conv_norm(x, width, 3, stride)), width, 3)
                if x.shape != y.shape:
                    x = conv_norm(x, y.shape[-1], 1, stride)
                x = nn.relu(x + y)
        return nn.Dense(self.num_classes)(jnp.mean(x, (1, 2), dtype=jnp.float32))


def make_model(name: str, num_classes: int, dtype: str = "float32") -> ResNet:
    """Returns the peer of `harness.network(name)`; of its fields, stem and stages count."""
    ours = network(name)
    fields = ours.block == "bottleneck", ours.stem == "small", ours.stem_width or ours.width
    return ResNet(ours.stage_sizes, *fields, num_classes, dtype)


OPTIMIZER = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9))
State = tuple[dict[str, Any], optax.OptState]


def train_step(
    model: nn.Module, state: State, images: jax.Array, labels: jax.Array
) -> tuple[State, jax.Array]:
    """Takes the plainest step from (variables, optimizer's state); returns the new and the loss."""
    variables, opt_state = state

    def objective(params):
        before = {**variables, "params": params}
        logits, changes = model.apply(before, images, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), changes

    params = variables["params"]
    (loss, changes), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    updates, opt_state = OPTIMIZER.update(gradients, opt_state, params)
    return ({**changes, "params": optax.apply_updates(params, updates)}, opt_state), loss


def make_step(name: str, images: Array, labels: Array, num_classes: int, dtype: str) -> Step:
    """See `harness`; `dtype` is that of convolutions and normalisation. The state is donated."""
    model, (images, labels) = make_model(name, num_classes, dtype), jax.device_put((images, labels))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    state = (variables, OPTIMIZER.init(variables["params"]))
    step = jax.jit(partial(train_step, model), donate_argnums=0)

    def run() -> jax.Array:
        nonlocal state
        state, loss = step(state, images, labels)
        return loss

    return run
