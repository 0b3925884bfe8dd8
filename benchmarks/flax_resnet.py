"""The peer in stock Flax: a ResNet of `flax.linen` layers and the plainest training step, for timing only."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


class Block(nn.Module):
    """A basic or bottleneck block, stride in the 3x3 (v1.5)."""

    features: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x, train):
        def conv_norm(x, features, size, stride=1):
            pad = size // 2
            x = nn.Conv(features, (size, size), (stride, stride), ((pad, pad), (pad, pad)), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

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
    """The ImageNet networks, [N, H, W, C] -> [N, num_classes]."""

    name_of_variant: str
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(64, (7, 7), (2, 2), ((3, 3), (3, 3)), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, blocks in enumerate(STAGES[self.name_of_variant]):
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                x = Block(64 * 2**stage, stride, self.name_of_variant == "resnet50")(x, train)
        return nn.Dense(self.num_classes)(jnp.mean(x, (1, 2)))


def make_step(name: str, images: jax.Array, labels: jax.Array, num_classes: int) -> Callable[[], float]:
    """A function that trains `name` for one step (momentum SGD, weight decay) on the batch and returns the loss."""
    model = ResNet(name, num_classes)
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9))
    state = {"variables": variables, "optimizer": optimizer.init(variables["params"])}

    @jax.jit
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

    def run() -> float:
        nonlocal state
        state, loss = step(state, images, labels)
        return float(loss)

    return run
