"""PyTorch's lines for a network that timm lacks, out of torchvision's own parts."""

from resnet_jax.models.resnet import ResNet
from resnet_jax.models.zoo import function_of

# What torchvision's blocks can be told, by torchvision's `ResNet` or by these lines.
_FREE = {"stage_sizes", "block", "stem", "stem_width", "stem_pool", "width"}
_FREE |= {"groups", "width_per_group"}
_MOST_STAGES = 4


def torchvision_lines(model: ResNet, channels: int) -> str | None:
    """Returns code that builds a network as `net`, whose state dictionary has our names.

    It changes a `torchvision.models.resnet.ResNet`: another stem, other widths, fewer stages.

    Args:
      model: the network.
      channels: of its images.

    Returns:
      The code; None where torchvision's blocks do not make such a network.
    """
    if not _has_torchvision_s_blocks(model):
        return None
    block = "BasicBlock" if model.block == "basic" else "Bottleneck"
    groups = f", groups={model.groups}, width_per_group={model.width_per_group}"
    arguments = f"{block}, [1, 1, 1, 1], num_classes={model.num_classes}"
    arguments += groups if model.block != "basic" else ""
    lines = [
        "from torch import nn",
        f"from torchvision.models.resnet import {block}, ResNet",
        "",
        f"net = ResNet({arguments})",
        f"net.inplanes = {model.stem_channels}",
        *_stem(model, channels),
    ]
    for stage in range(_MOST_STAGES):
        name, width = f"net.layer{stage + 1}", model.width * 2**stage
        if stage < len(model.stage_sizes):
            stride = ", stride=2" if stage else ""
            made = f"net._make_layer({block}, {width}, {model.stage_sizes[stage]}{stride})"
        else:
            made = "nn.Identity()"
        lines.append(f"{name} = {made}")
    features = list(model.feature_info().values())[-1].channels
    lines.append(f"net.fc = nn.Linear({features}, {model.num_classes})")
    return "\n".join(lines)


def _has_torchvision_s_blocks(model: ResNet) -> bool:
    ours, theirs = function_of(model), function_of(ResNet())
    fixed = ours.keys() - _FREE - {"version"}
    # A basic block is the same in versions v1 and v1.5.
    version = model.version == "v1.5" or (model.version == "v1" and model.block == "basic")
    return (
        version
        and all(ours[name] == theirs[name] for name in fixed)
        and len(model.stage_sizes) <= _MOST_STAGES
        and model.stem in ("imagenet", "small", "deep")
        and model.pool_after_stem in ("max", "none", "conv")
        and model.num_classes > 0
    )


def _stem(model: ResNet, channels: int) -> list[str]:
    width = model.stem_channels
    if model.stem == "deep":
        half = width // 2
        stem = [
            "net.conv1 = nn.Sequential(",
            f"    {_convolution(channels, half, 3, 2)}, nn.BatchNorm2d({half}), nn.ReLU(),",
            f"    {_convolution(half, half, 3, 1)}, nn.BatchNorm2d({half}), nn.ReLU(),",
            f"    {_convolution(half, width, 3, 1)},",
            ")",
        ]
    else:
        size, stride = (7, 2) if model.stem == "imagenet" else (3, 1)
        stem = [f"net.conv1 = {_convolution(channels, width, size, stride)}"]
    stem.append(f"net.bn1 = nn.BatchNorm2d({width})")
    if model.pool_after_stem == "conv":
        stem += [
            "net.maxpool = nn.Sequential(",
            f"    {_convolution(width, width, 3, 2)}, nn.BatchNorm2d({width}), nn.ReLU(),",
            ")",
        ]
    elif model.pool_after_stem == "none":
        stem.append("net.maxpool = nn.Identity()")
    return stem


def _convolution(channels: int, features: int, size: int, stride: int) -> str:
    return (
        f"nn.Conv2d({channels}, {features}, {size}, stride={stride}, padding={size // 2},"
        " bias=False)"
    )
