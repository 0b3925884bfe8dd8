"""The config.json that timm, the hub and `read_config` take beside weights: what writes it."""

import math
from collections.abc import Sequence
from typing import Any

from resnet_jax.models.checks import fields_of
from resnet_jax.models.interop.pretrained_config import CROP_MODES, OWN
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.variants import ALIASES, VARIANTS, Variant
from resnet_jax.models.zoo import function_of

IMAGE_FIELDS = ("image_size", "eval_size", "interpolation", "crop", "crop_mode", "mean", "std")
_TIMM_NAMES = {ours: theirs for theirs, ours in ALIASES.items()}


def public_variant(model: ResNet) -> Variant | None:
    """Returns the row of the network among those that timm has; torchvision's are among them."""
    function = function_of(model)
    public = (row for row in VARIANTS.values() if row.counts.startswith(("timm", "torchvision")))
    return next((row for row in public if function_of(ResNet(**row.fields)) == function), None)


def timm_name(row: Variant) -> str:
    """Returns what timm calls a network of the table."""
    return _TIMM_NAMES.get(row.name, row.name)


def make_config(
    model: ResNet,
    *,
    classes: Sequence[str],
    licence: str,
    image_size: int,
    eval_size: int,
    interpolation: str,
    crop: float,
    crop_mode: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> dict[str, Any]:
    """Returns what config.json says of a network.

    A network that timm has gets timm's form, any other one of this project's, which timm refuses.

    Args:
      model: the network.
      classes: their names, or none.
      licence: of the weights, or "unknown".
      image_size, eval_size, interpolation, crop, crop_mode, mean, std: as `Description` has them.
    """
    channels = len(mean)
    images: dict[str, Any] = {
        "custom_load": False,
        "input_size": [channels, image_size, image_size],
        "fixed_input_size": False,
        "interpolation": interpolation,
        "crop_pct": _crop_share(image_size, crop),
        "crop_mode": {ours: theirs for theirs, ours in CROP_MODES.items()}[crop_mode],
        "mean": list(mean),
        "std": list(std),
        "num_classes": model.num_classes,
        **_layers(model),
    }
    if eval_size != image_size:
        images["test_input_size"] = [channels, eval_size, eval_size]
        images["test_crop_pct"] = _crop_share(eval_size, crop)
    if licence != "unknown":
        images["license"] = licence
    row = public_variant(model)
    if row is not None:
        arguments = {"num_classes": model.num_classes, "in_chans": channels}
        network = {"architecture": timm_name(row), "model_args": arguments}
    else:
        function, known = function_of(model), fields_of(ResNet)
        fields = {name: function[name] for name in known if name in function}
        fields |= {"name": "resnet50", "num_classes": model.num_classes}
        network = {"model_type": OWN, "model": fields}
    config = {**network, "num_classes": model.num_classes, "pretrained_cfg": images}
    if len(classes) == model.num_classes:
        config["label_names"] = list(classes)
    return config


def _layers(model: ResNet) -> dict[str, str]:
    """Returns the names of the layers that another number of channels or classes changes."""
    before, deep = model.version == "v2", model.stem in ("deep", "tiered")
    first = ("stem.conv1" if deep else "stem.conv") if before else f"conv1{'.0' if deep else ''}"
    return {"first_conv": first, "classifier": "head.fc" if before else "fc"}


def _crop_share(side: int, share: float) -> float:
    """Returns a share for which timm, which rounds the resized side down, has our resized side."""
    resized = max(side, round(side / share))
    found = side / resized
    return found if math.floor(side / found) == resized else math.nextafter(found, 0)


def unusual_fields(model: ResNet) -> dict[str, Any]:
    """Returns the fields in which a network is not a ResNet-50, but for its classes."""
    function, usual = function_of(model), function_of(ResNet())
    return {
        name: function[name]
        for name in fields_of(ResNet)
        if name in function and function[name] != usual[name]
    }
