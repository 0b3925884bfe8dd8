"""Residual networks in JAX and Flax."""

from resnet_jax.errors import UserError

__all__ = ["UserError"]
