"""A run's seed as data: two words that travel with the state, and the key they stand for."""

import jax
import jax.numpy as jnp
import numpy as np


def seed_words(seed: int) -> np.ndarray:
    """Returns a seed of up to 64 bits as uint32 [2], the low word first."""
    return np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)


def seed_key(words: jax.Array) -> jax.Array:
    """Returns the key that `jax.random.key(seed)` gives for the seed of `seed_words`.

    Without 64-bit types JAX itself takes the low word alone.
    """
    # JAX makes the attributes of its config at run time.
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        return jax.random.key(words[0])
    return jax.random.key(words[0].astype(jnp.uint64) | words[1].astype(jnp.uint64) << 32)
