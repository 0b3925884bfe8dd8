"""ReLU whose derivative reads its output."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """Returns max(x, 0), with the derivative of `jax.nn.relu`, which is 0 at 0.

    For a sum of maps: a GPU's compiler would compute the sign of `x` again in the backward pass,
    from all the maps that went into it, where the output is one map and is there already.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals, tangents):
    # Behind the barrier the compiler does not see what the output is made of.
    y = lax.platform_dependent(relu(*primals), cuda=lax.optimization_barrier, default=lambda y: y)
    return y, jnp.where(y > 0, *tangents, 0)
