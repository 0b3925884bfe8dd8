"""The family by name: the functions that read the table of variants."""

import dataclasses
import fnmatch
import types
from collections.abc import Mapping
from typing import Any

from resnet_jax.errors import UserError, nearest
from resnet_jax.fields import Field
from resnet_jax.models.checks import check_names, fields_of, names_of
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.variants import ALIASES, VARIANTS, Variant

# What a recipe may set under `config.model`; None: as the table's row has it, else as `ResNet`.
FIELDS: Mapping[str, Field] = types.MappingProxyType(
    {"name": Field("resnet50", "a name that list_models() gives", str)}
    | {name: dataclasses.replace(one, default=None) for name, one in fields_of(ResNet).items()}
)

# These change how a network trains, or how it computes the same function.
_ANY_VALUE = {"num_classes", "dtype", "param_dtype", "stochastic_depth", "dropout", "zero_init"}
_ANY_VALUE |= {"norm_momentum", "norm_group_size", "norm_frozen", "axis_name", "scan_blocks"}
_ANY_VALUE |= {"remat", "float32_sums"}


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names that match a pattern such as "resnet*", aliases not listed."""
    return sorted(fnmatch.filter(VARIANTS, pattern))


def get_variant(name: str) -> Variant:
    """Returns the row of a name or an alias; else raises `UserError` with the nearest names."""
    row = VARIANTS.get(ALIASES.get(name, name))
    network, dot, _ = str(name).partition(".")
    if row is None and dot and ALIASES.get(network, network) in VARIANTS:
        raise UserError(
            f"model.name = {name!r} names weights of {network!r}: create_model({network!r}) builds"
            f" the network, load_pretrained('timm/{name}') brings its weights"
        )
    if row is None:
        hint = nearest(str(name), [*VARIANTS, *ALIASES]) or "list_models() names them all"
        raise UserError(f"model.name = {name!r} is not a model; {hint}")
    return row


def create_model(name: str, /, **fields: Any) -> ResNet:
    """Builds a network of the table.

    Args:
      name: one that `list_models` gives, or timm's spelling of it.
      **fields: fields of `ResNet` to set, Flax's own `name` among them; None leaves a field as the
        table has it.

    Returns:
      The module; `init` it for variables.

    Raises:
      UserError: the name or a field is unknown, or the fields contradict each other.
    """
    variant = get_variant(name)
    check_names(ResNet, fields)
    given = {key: value for key, value in fields.items() if value is not None}
    return ResNet(**{**variant.fields, **given})


def describe(fields: Mapping[str, Any]) -> str:
    """Names a network, and the fields in which it is not the one of that name.

    Args:
      fields: of `create_model`, with "name"; None leaves a field as the table has it. The number of
        classes is no field of the architecture.

    Returns:
      Such as "resnet18" or "resnet18 with stage_sizes (1, 1, 1), width 16".
    """
    reference = create_model(fields["name"])
    others = [
        f"{name} {value}"
        for name, value in fields.items()
        if name not in ("name", "num_classes")
        if value is not None and value != getattr(reference, name)
    ]
    return f"{fields['name']} with {', '.join(others)}" if others else fields["name"]


def function_of(model: ResNet) -> dict[str, Any]:
    """Returns the fields that decide what a network computes of images, up to its classifier."""
    function = {name: getattr(model, name) for name in names_of(type(model))}
    function |= {"stem_width": model.stem_channels, "stem_pool": model.pool_after_stem}
    return {name: value for name, value in function.items() if name not in _ANY_VALUE}
