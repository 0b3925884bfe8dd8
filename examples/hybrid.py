"""A network that is no row of the table, made by hand from the blocks, and trained on CIFAR-10's
image size.

    python examples/hybrid.py

A 5×5 stem, two basic blocks at 64 channels, three bottleneck blocks that each halve the map and
multiply the channels by four, and a 4×4 convolution of 1,024 channels with dropout as the head.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.layers import BatchNorm, Conv
from resnet_jax.ops.conv2d import conv2d


class Hybrid(nn.Module):
    """Images [N, 32, 32, C] -> logits [N, num_classes]; `width` is 64 in the tutorial."""

    num_classes: int = 10
    width: int = 64
    head: int = 1024

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(BatchNorm()(Conv(self.width, size=5)(x), train=train))
        for _ in range(2):
            x = BasicBlock(self.width)(x, train=train)
        for growth in (1, 4, 16):
            x = BottleneckBlock(self.width * growth, stride=2)(x, train=train)
        kernel = self.param("head", nn.initializers.he_normal(), (4, 4, x.shape[-1], self.head))
        x = nn.relu(conv2d(x, kernel)).reshape(len(x), -1)
        return nn.Dense(self.num_classes)(nn.Dropout(0.4)(x, deterministic=not train))


def train(model, images, labels, steps, learning_rate=1e-3):
    """Returns the loss of each of `steps` steps of Adam on images [N, 32, 32, C] and labels [N]."""
    variables = model.init(jax.random.key(0), images[:1])
    optimizer = optax.adam(learning_rate)

    @jax.jit
    def step(variables, opt_state, key):
        def loss(params):
            everything = {**variables, "params": params}
            logits, updates = model.apply(
                everything, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

        (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        changes, opt_state = optimizer.update(gradients, opt_state)
        return (
            {**updates, "params": optax.apply_updates(variables["params"], changes)},
            opt_state,
            value,
        )

    losses, opt_state = [], optimizer.init(variables["params"])
    for key in jax.random.split(jax.random.key(1), steps):
        variables, opt_state, value = step(variables, opt_state, key)
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    noise = jax.random.normal(jax.random.key(2), (8, 32, 32, 3))
    print(train(Hybrid(), noise, jnp.arange(8) % 10, steps=10))
