"""The family by name: one table of variants, and the functions that read it."""

import dataclasses
import fnmatch
import types
from collections.abc import Mapping
from typing import Any

from resnet_jax.errors import UserError, nearest
from resnet_jax.fields import Field
from resnet_jax.models.checks import RESNET_FIELDS, check_names
from resnet_jax.models.resnet import ResNet


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
      name: for `create_model`.
      fields: of `ResNet`, where they differ from its defaults.
      params: reference count of parameters.
      macs: reference multiply-adds of one forward pass at `image_size`.
      source: where the architecture and the reference counts come from.
      image_size: height and width for `macs`, in pixels.
    """

    name: str
    fields: Mapping[str, Any]
    params: int
    macs: float
    source: str
    image_size: int = 224


_TORCHVISION = "He et al. 2015, table 1; counts: torchvision 0.29.2"
_BASIC = {"block": "basic"}

_ROWS = (
    Variant("resnet18", {"stage_sizes": (2, 2, 2, 2), **_BASIC}, 11_689_512, 1.814e9, _TORCHVISION),
    Variant("resnet34", {"stage_sizes": (3, 4, 6, 3), **_BASIC}, 21_797_672, 3.664e9, _TORCHVISION),
    Variant("resnet50", {"stage_sizes": (3, 4, 6, 3)}, 25_557_032, 4.089e9, _TORCHVISION),
    Variant("resnet101", {"stage_sizes": (3, 4, 23, 3)}, 44_549_160, 7.801e9, _TORCHVISION),
    Variant("resnet152", {"stage_sizes": (3, 8, 36, 3)}, 60_192_808, 11.514e9, _TORCHVISION),
)
VARIANTS: Mapping[str, Variant] = types.MappingProxyType({row.name: row for row in _ROWS})

# What a recipe may set under `config.model`.
FIELDS: Mapping[str, Field] = types.MappingProxyType(
    {
        "name": Field("resnet50", "a name that list_models() gives", str),
        "num_classes": Field(None, "classes; None: as the data set has, 0: pooled features", int, at_least=0),
        **RESNET_FIELDS,
    }
)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names that match a shell-style pattern, such as "resnet*"."""
    return sorted(fnmatch.filter(VARIANTS, pattern))


def get_variant(name: str) -> Variant:
    """Returns the table's row for a name; raises `UserError` with the nearest names when there is none."""
    if name not in VARIANTS:
        raise UserError(f"model.name = {name!r} is not a model; {nearest(name, VARIANTS)}".rstrip("; "))
    return VARIANTS[name]


def create_model(name: str, **fields: Any) -> ResNet:
    """Builds a network of the table.

    Args:
      name: one that `list_models` gives.
      **fields: fields of `ResNet` to set; None leaves a field as the table has it.

    Returns:
      The module; `init` it for variables.

    Raises:
      UserError: the name or a field is unknown, or the fields contradict each other.
    """
    variant = get_variant(name)
    check_names(fields)
    return ResNet(**{**variant.fields, **{key: value for key, value in fields.items() if value is not None}})
