"""ReLU, with a derivative and a hold on its output that suit each platform."""

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Float


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def relu(x: "Float[jax.Array, '*shape']", of_sum: bool = False) -> "Float[jax.Array, '*shape']":
    """Returns max(x, 0), with the derivative of `jax.nn.relu`, which is 0 at 0.

    `of_sum` tells that x is a sum of maps: a GPU's compiler would compute its sign again in the
    backward pass, from all the maps that went into it, where the output is one map and is there
    already.
    """
    return lax.platform_dependent(jnp.maximum(x, 0), cpu=_kept, default=lambda y: y)


@relu.defjvp
def _relu_jvp(of_sum, primals, tangents):
    (x,), (dx,) = primals, tangents
    y = relu(x, of_sum)

    def masked(sign, dx):
        return jnp.where(sign > 0, dx, 0)

    # Behind the barrier the compiler does not see what the output is made of.
    on_gpu = {"cuda": lambda y, x, dx: masked(lax.optimization_barrier(y), dx)} if of_sum else {}
    return y, lax.platform_dependent(
        y,
        x,
        dx,
        cpu=lambda y, x, dx: masked(y, _kept(dx)),
        default=lambda y, x, dx: masked(y if of_sum else x, dx),
        **on_gpu,
    )


def _kept(x: jax.Array) -> jax.Array:
    """Returns x, which XLA:CPU then writes to memory once, as it does its cotangent.

    Else it computes all that is done to a map between two convolutions again for each that reads
    it. It takes nothing into a fusion through a conditional, and the barrier hides that the other
    branch is never taken.
    """
    never = lax.optimization_barrier(np.False_)
    return lax.cond(never, jnp.negative, lambda x: x, x)
