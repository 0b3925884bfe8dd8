"""Networks some of whose BatchNorm layers do not move while the rest trains."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax

from resnet_jax.errors import UserError
from resnet_jax.models.layers import BatchNorm
from resnet_jax.models.resnet import ResNet


@dataclasses.dataclass(frozen=True)
class FrozenNorms:
    """A network in whose frozen layers the running statistics normalise, and stay as they are.

    Attributes:
      model: the network.
      frozen: paths of its BatchNorm layers, such as "layer1_0/bn1".
    """

    model: ResNet
    frozen: Collection[str]

    def __post_init__(self) -> None:
        if self.model.scan_blocks:
            # A loop's body is one layer for all of a stage's blocks.
            raise UserError(
                "config.model.scan_blocks = True: a part of the BatchNorm layers cannot be frozen;"
                " set it to False, or config.model.norm_frozen to True or False"
            )

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Does what the network's own `apply` does."""
        with nn.intercept_methods(self._hold):
            return self.model.apply(*args, **kwargs)

    def _hold(
        self, method: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        layer = context.module
        if isinstance(layer, BatchNorm) and context.method_name == "__call__":
            is_frozen = "/".join(layer.path) in self.frozen
            kwargs = {**kwargs, "train": kwargs["train"] and not is_frozen}
        return method(*args, **kwargs)


def hold_norms(model: ResNet, params: Any, is_frozen: Callable[[str], bool]) -> Any:
    """Returns the network with the BatchNorm layers held still whose scales are frozen.

    Args:
      model: the network.
      params: its parameters, or their shapes.
      is_frozen: path of a parameter, such as "layer1_0/bn1/scale", -> whether it does not train.
    """
    if model.norm != "batch":
        return model
    paths = ["/".join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(params)]
    scales = [path for path in paths if path.endswith("/scale")]
    held = [path.removesuffix("/scale") for path in scales if is_frozen(path)]
    if len(held) == len(scales):
        return model.clone(norm_frozen=True)
    return FrozenNorms(model, frozenset(held)) if held else model
