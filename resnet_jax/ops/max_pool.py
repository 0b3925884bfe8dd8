"""Max pooling by platform: XLA's own on TPUs, elsewhere nine slices, which have a fast gradient."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Float


def max_pool(x: "Float[jax.Array, 'n h w c']") -> "Float[jax.Array, 'n h_out w_out c']":
    """Pools 3x3 windows two apart, padded by one pixel.

    [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C]. The gradient goes to the first pixel, by rows
    then columns, that holds a window's maximum, as in XLA's own pooling and PyTorch's.
    Differentiable to any order, in forward and reverse mode.
    """
    if not all(isinstance(size, int) for size in x.shape[1:3]):
        # `jax.export` leaves them open, and cannot see that both forms give maps of one size.
        return _nine_slices(x)
    return lax.platform_dependent(x, tpu=_reduce_window, default=_nine_slices)


def _reduce_window(x: jax.Array) -> jax.Array:
    lowest = np.array(-np.inf, x.dtype)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, lowest, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


@jax.custom_jvp
def _nine_slices(x: jax.Array) -> jax.Array:
    return _maximum_and_tap(x)[0]


@_nine_slices.defjvp
def _nine_slices_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    maximum, tap = _maximum_and_tap(x)
    return maximum, _pick(dx, tap)


def _maximum_and_tap(x):
    """Each window's maximum, and which of its 9 pixels has it first (int8): both [N, h, w, C]."""
    lowest = np.array(-np.inf, x.dtype)
    height, width = ((size + 1) // 2 * 2 for size in x.shape[1:3])
    padded = lax.pad(
        x, lowest, ((0, 0, 0), (1, height - x.shape[1], 0), (1, width - x.shape[2], 0), (0, 0, 0))
    )
    taps = [(i, j) for i in range(3) for j in range(3)]
    first, *others = (padded[:, i : i + height : 2, j : j + width : 2] for i, j in taps)
    maximum, tap = first, jnp.zeros(first.shape, jnp.int8)
    for number, pixel in enumerate(others, 1):
        tap = jnp.where(pixel > maximum, np.int8(number), tap)
        maximum = jnp.maximum(maximum, pixel)
    return maximum, tap


def _pick(x, tap):
    """Takes pixel number `tap` of each window of x [N, H, W, C]: [N, h, w, C].

    Written for its transpose, which XLA:CPU fuses into one pass over x: pixel (2i + p, 2j + q)
    belongs to window (i, j), as its tap (1 + p, 1 + q), to the next window below where p = 1, as
    its tap (0, ..), and to the next one to the right where q = 1, as its tap (.., 0).
    """
    images, h, w, channels = tap.shape
    x = jnp.pad(x, ((0, 0), (0, 2 * h - x.shape[1]), (0, 2 * w - x.shape[2]), (0, 0)))
    x = x.reshape(images, h, 2, w, 2, channels)
    picked = jnp.zeros(tap.shape, x.dtype)
    for down in (0, 1):
        for right in (0, 1):
            rows, columns = (
                np.array([-9, 0]) if shifted else np.array([1, 2]) for shifted in (down, right)
            )
            taps = (3 * rows[:, None] + columns).astype(np.int8)[:, None, :, None]
            window = jnp.pad(
                tap[:, down:, right:], ((0, 0), (0, down), (0, right), (0, 0)), constant_values=-1
            )
            chosen = jnp.where(window[:, :, None, :, None] == taps, x, 0).sum((2, 4))
            picked += jnp.pad(
                chosen[:, : h - down, : w - right], ((0, 0), (down, 0), (right, 0), (0, 0))
            )
    return picked
