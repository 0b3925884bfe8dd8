"""What each layer takes and costs, found by tracing shapes: nothing is computed or compiled."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.blocks import ResidualBlock
from resnet_jax.models.gates import EfficientChannelAttention, SqueezeExcite
from resnet_jax.models.layers import (
    BatchNorm,
    Conv,
    GroupNorm,
)
from resnet_jax.models.resnet import ResNet

Shape = tuple[int, ...]
KINDS: dict[type, str] = {
    Conv: "conv",
    nn.Dense: "dense",
    nn.Conv: "dense",  # the one of a gate, over channels
    BatchNorm: "norm",
    GroupNorm: "norm",
    SqueezeExcite: "gate",
    EfficientChannelAttention: "gate",
    ResidualBlock: "block",
}


class Layer(NamedTuple):
    """One layer, or one whole block, as one image passes it.

    Attributes:
      path: names from the network down, as in the parameter tree.
      kind: "conv", "dense" (also a gate's own layers), "norm", "gate" or "block".
      inputs, outputs: shapes for one image, without N.
      macs: multiply-adds of a conv or dense layer, biases not counted; 0 for the others.
      shares_input: whether an earlier layer of its kind reads the very same map.
    """

    path: tuple[str, ...]
    kind: str
    inputs: Shape
    outputs: Shape
    macs: int
    shares_input: bool


class Trace(NamedTuple):
    """A network's layers in the order they run, and the shapes of its variables."""

    layers: list[Layer]
    variables: dict[str, Any]


def trace(model: ResNet, image_size: int | tuple[int, int] = 224, channels: int = 3) -> Trace:
    """Records the layers that one image passes.

    Args:
      model: the network; of equal blocks the first alone is traced.
      image_size: height and width, in pixels.
      channels: of the image.

    Returns:
      The `Trace`; a conv's multiply-adds are H' * W' * features * kernel height * width * C /
      groups.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    image = jax.ShapeDtypeStruct((1, height, width, channels), model.param_dtype)
    model = model.clone(remat="none")
    compiled_once = model.clone(scan_blocks=True)
    variables = jax.eval_shape(lambda x: compiled_once.init(jax.random.key(0), x), image)
    recorder = _Recorder()
    with nn.intercept_methods(recorder):
        jax.eval_shape(model.clone(scan_blocks=False).apply, variables, image)
    return Trace(recorder.layers, variables)


class _Recorder:
    """Takes the place of every call of a module's method, and keeps the layers it sees."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.read: dict[tuple[str, int], jax.Array] = {}  # kept, so that no address is used twice
        self.blocks: dict[tuple, tuple[slice, Any]] = {}  # seen: their layers, and their output

    def __call__(self, call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        kind = next((KINDS[base] for base in type(module).__mro__ if base in KINDS), None)
        if kind is None or context.method_name != "__call__":
            return call(*args, **kwargs)
        x, start = args[0], len(self.layers)
        equal = (module.clone(parent=None, name=None), x.shape) if kind == "block" else None
        if equal in self.blocks:
            known, y = self.blocks[equal]
            self.layers += [
                layer._replace(path=module.path + layer.path[len(module.path) :])
                for layer in self.layers[known]
            ]
            return jnp.zeros(y.shape, y.dtype)
        y = call(*args, **kwargs)
        shared = (kind, id(x)) in self.read
        self.read[kind, id(x)] = x
        macs = _multiply_adds(module, x.shape, y.shape)
        self.layers.append(Layer(module.path, kind, x.shape[1:], y.shape[1:], macs, shared))
        if equal is not None:
            self.blocks[equal] = slice(start, len(self.layers)), y
        return y


def count_params(variables: Any) -> int:
    """Returns the number of trainable parameters in variables, be they arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def _multiply_adds(module: nn.Module, inputs: Shape, outputs: Shape) -> int:
    if isinstance(module, Conv):
        return math.prod(outputs[1:]) * module.size**2 * (inputs[-1] // module.groups)
    if isinstance(module, nn.Conv):
        taps = module.kernel_size
        taps = taps if isinstance(taps, int) else math.prod(taps)
        return math.prod(outputs[1:]) * taps * inputs[-1]
    if isinstance(module, nn.Dense):
        return math.prod(outputs[1:]) * inputs[-1]
    return 0
