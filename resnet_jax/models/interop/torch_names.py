"""How our variables and PyTorch's state dictionaries name and lay out the same arrays."""

import re
from typing import NamedTuple

import numpy as np

Path = tuple[str, ...]
Shape = tuple[int, ...]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

# timm's ResNetV2, the only PyTorch naming of pre-activation nets in wide use.
_PREACTIVATION_TOP = {
    "conv1": "stem.conv",
    "conv1_0": "stem.conv1",
    "conv1_1": "stem.norm1",
    "conv1_3": "stem.conv2",
    "conv1_4": "stem.norm2",
    "conv1_6": "stem.conv3",
    "fc": "head.fc",
}


# transformers' ResNetForImageClassification, in torchvision's order of layers.
_TRANSFORMERS_TOP = {
    "embedder.embedder.convolution": "conv1",
    "embedder.embedder.normalization": "bn1",
    "classifier.1": "fc",
}
_TRANSFORMERS_BLOCK = re.compile(
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut|layer\.(\d+))\.(convolution|normalization)"
)


class TorchArray(NamedTuple):
    """Where PyTorch keeps one of our leaves: its key, its shape there, and our shape."""

    key: str
    shape: Shape
    ours: Shape


def torch_array(path: Path, shape: Shape, preactivation: bool) -> TorchArray:
    """Names a leaf as torchvision does, or for a pre-activation net as timm does.

    Args:
      path: from the collection down, such as ("layer1_0", "conv1", "kernel").
      shape: ours; kernels are [height, width, in, out] and [in, out].
      preactivation: whether the net is of version v2.
    """
    *modules, leaf = path
    if preactivation:
        names = [
            _PREACTIVATION_TOP.get(modules[0], _in_stage(modules[0])),
            *map(_in_block, modules[1:]),
        ]
    else:
        names = [re.sub(r"_(\d+)$", r".\1", name) for name in modules]
    key = ".".join([*names, _LEAVES[leaf]])
    theirs = shape
    if leaf == "kernel" and len(shape) == 4:
        theirs = (shape[3], shape[2], shape[0], shape[1])
    elif leaf == "kernel" and len(shape) == 3:
        theirs = shape[::-1]
    elif leaf == "kernel":
        # timm's gates and its ResNetV2 classifier are 1x1 convolutions.
        as_conv = "se" in modules or (preactivation and modules == ["fc"])
        theirs = (shape[1], shape[0], *((1, 1) if as_conv else ()))
    return TorchArray(key, theirs, shape)


def to_torch(array: np.ndarray, target: TorchArray) -> np.ndarray:
    """Lays one of our arrays out as PyTorch does."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif array.ndim in (2, 3):
        array = array.T
    return np.ascontiguousarray(array).reshape(target.shape)


def from_torch(array: np.ndarray, target: TorchArray) -> np.ndarray:
    """Lays a PyTorch array of `target.shape`, up to axes of length 1, out as ours."""
    if len(target.ours) == 4:
        array = array.transpose(2, 3, 1, 0)
    elif len(target.ours) == 3:
        array = array.T
    elif len(target.ours) == 2:
        array = array.reshape(array.shape[:2]).T
    return np.ascontiguousarray(array)


def _in_stage(name: str) -> str:
    block = re.fullmatch(r"layer(\d+)_(\d+)", name)
    return f"stages.{int(block[1]) - 1}.blocks.{block[2]}" if block else name


def _in_block(name: str) -> str:
    return "downsample.conv" if name.startswith("downsample") else name.replace("bn", "norm")


def from_transformers(key: str) -> str:
    """Returns torchvision's name of an array of transformers' ResNetForImageClassification.

    A key of any other naming comes back as it is.
    """
    module, _, leaf = key.removeprefix("resnet.").rpartition(".")
    if module in _TRANSFORMERS_TOP:
        return f"{_TRANSFORMERS_TOP[module]}.{leaf}"
    found = _TRANSFORMERS_BLOCK.fullmatch(module)
    if not found:
        return key
    stage, block, where, number, kind = found.groups()
    is_norm = kind == "normalization"
    if where == "shortcut":
        layer = f"downsample.{int(is_norm)}"
    else:
        layer = f"{'bn' if is_norm else 'conv'}{int(number) + 1}"
    return f"layer{int(stage) + 1}.{block}.{layer}.{leaf}"
