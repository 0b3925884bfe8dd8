"""Equal blocks as one compiled loop, each with its own entry in the parameter tree."""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from resnet_jax.models.blocks import ResidualBlock


def scan_blocks(
    blocks: Sequence[ResidualBlock],
    x: jax.Array,
    *,
    train: bool,
    drop_rates: Sequence[float],
    remat: bool = False,
) -> jax.Array:
    """Applies blocks one after the other, compiling the first alone.

    Their variables are stacked, scanned over, and changed statistics go back to each block's own
    entry, so that parameters and results are those of the plain loop. Compile time does not grow
    with the number of blocks.

    Args:
      blocks: bound blocks, equal but for their names, that keep the shape of x.
      x: [N, H, W, C].
      train: as for a block.
      drop_rates: one rate a block; the rng "dropout" is needed when any is above 0 in training.
      remat: whether the backward pass computes the blocks again, keeping the maps between them.

    Returns:
      [N, H, W, C].
    """
    first = blocks[0]
    # Unbound, so that the loop's body is a pure function of the variables it is given.
    template = first.clone(parent=None, name=None)
    if first.is_initializing():
        keys = jax.random.split(first.make_rng("params"), len(blocks))
        # Jitted, the forward pass that shapes the parameters is never computed.
        init = jax.jit(jax.vmap(lambda key: template.init(key, x, train=False)))
        _unstack(blocks, init(keys))
    variables = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(block.variables for block in blocks)
    )
    mutable = [name for name in variables if name != "params" and first.is_mutable_collection(name)]
    drops = train and any(drop_rates)
    keys = jax.random.split(first.make_rng("dropout"), len(blocks)) if drops else None

    def body(x, block):
        variables, rate, key = block
        options = {"drop_rate": rate, "rngs": {"dropout": key}} if drops else {}
        return template.apply(variables, x, train=train, mutable=mutable, **options)

    if remat:
        body = jax.checkpoint(body, prevent_cse=False)
    x, changed = jax.lax.scan(body, x, (variables, jnp.asarray(drop_rates, jnp.float32), keys))
    if not first.is_initializing():  # which moves no statistics, as in `BatchNorm`
        _unstack(blocks, changed)
    return x


def _unstack(blocks: Sequence[ResidualBlock], variables: dict) -> None:
    for collection, layers in variables.items():
        for number, block in enumerate(blocks):
            for name, value in jax.tree.map(operator.itemgetter(number), layers).items():
                block.put_variable(collection, name, value)
