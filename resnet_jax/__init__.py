"""Residual networks in JAX and Flax.

from resnet_jax import create_model, list_models
model = create_model("resnet50", num_classes=10, dtype="bfloat16")
variables = model.init(jax.random.key(0), images, train=False)  # images [N, H, W, C]
logits = model.apply(variables, images, train=False)  # [N, 10], float32
"""

from resnet_jax.errors import UserError
from resnet_jax.models import ResNet, create_model, list_models

__all__ = ["ResNet", "UserError", "create_model", "list_models"]
