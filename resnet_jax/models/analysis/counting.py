"""What each layer of a network takes and costs, found by tracing shapes: nothing is computed or
compiled.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from resnet_jax.models.blocks import ResidualBlock
from resnet_jax.models.layers import BatchNorm, Conv, GroupNorm, SqueezeExcite
from resnet_jax.models.resnet import ResNet

Shape = tuple[int, ...]
KINDS: dict[type, str] = {
    Conv: "conv",
    nn.Dense: "dense",
    BatchNorm: "norm",
    GroupNorm: "norm",
    SqueezeExcite: "gate",
    ResidualBlock: "block",
}


class Layer(NamedTuple):
    """One layer, or one whole block, as one image passes it.

    Attributes:
      path: names from the network down, as in the parameter tree.
      kind: "conv", "dense", "norm", "gate" (squeeze-and-excitation) or "block".
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
      model: the network; equal blocks are traced once, as a loop would compile them.
      image_size: height and width, in pixels.
      channels: of the image.

    Returns:
      The `Trace`; a conv's multiply-adds are H' * W' * features * kernel height * width * C /
      groups.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    model = model.clone(scan_blocks=True)
    layers: list[Layer] = []
    read: dict[tuple[str, int], jax.Array] = {}  # holds the maps, so that no address is used twice

    def record(call, args, kwargs, context):
        start = len(layers)
        y = call(*args, **kwargs)
        if context.method_name == "_scan_stage":
            stage = args[1]
            layers[start:] = _repeat(layers[start:], f"layer{stage + 1}_", model.stage_sizes[stage])
        kind = next((KINDS[base] for base in type(context.module).__mro__ if base in KINDS), None)
        if kind and context.method_name == "__call__":
            x = args[0]
            shared = (kind, id(x)) in read
            read[kind, id(x)] = x
            macs = _multiply_adds(context.module, x.shape, y.shape)
            layers.append(Layer(context.module.path, kind, x.shape[1:], y.shape[1:], macs, shared))
        return y

    image = jax.ShapeDtypeStruct((1, height, width, channels), model.param_dtype)
    with nn.intercept_methods(record):
        variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    return Trace(layers, variables)


def count_params(variables: Any) -> int:
    """Returns the number of trainable parameters among `variables`, which may be arrays or
    shapes.
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def _repeat(layers: list[Layer], prefix: str, size: int) -> list[Layer]:
    """Returns the layers of blocks 1 to size - 1, given those recorded while one was traced,
    perhaps twice.
    """
    body = layers[: 1 + [layer.kind for layer in layers].index("block")]
    return [
        layer._replace(path=(f"{prefix}{number}", *layer.path))
        for number in range(1, size)
        for layer in body
    ]


def _multiply_adds(module: nn.Module, inputs: Shape, outputs: Shape) -> int:
    if isinstance(module, Conv):
        return math.prod(outputs[1:]) * module.size**2 * (inputs[-1] // module.groups)
    if isinstance(module, nn.Dense):
        return math.prod(outputs[1:]) * inputs[-1]
    return 0
