"""The fields of `ResNet` that a recipe may set, and the contradictions among them."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from resnet_jax.errors import UserError, nearest
from resnet_jax.fields import Field

DTYPES = ("float32", "bfloat16", "float16", "float64")

# Every default is None: as the table's row for that name has it, else as `ResNet` has it.
RESNET_FIELDS: dict[str, Field] = {
    "stage_sizes": Field(None, "blocks of each stage", tuple[int, ...], at_least=1),
    "block": Field(None, "kind of residual block", str, choices=("basic", "bottleneck")),
    "version": Field(
        None,
        "v1, v1.5 (stride in the 3x3) or v2 (pre-activation)",
        str,
        choices=("v1", "v1.5", "v2"),
    ),
    "shortcut": Field(
        None,
        "A or A_pool padded identity, B projection where the shape changes, C everywhere, D after a"
        " pool",
        str,
        choices=("A", "A_pool", "B", "C", "D"),
    ),
    "residual": Field(None, "False for a plain net, without shortcuts", bool),
    "stem": Field(
        None,
        "imagenet 7x7/2, small 3x3/1, deep three 3x3",
        str,
        choices=("imagenet", "small", "deep"),
    ),
    "stem_width": Field(None, "channels after the stem; None: as width", int, at_least=1),
    "stem_pool": Field(
        None, "after the stem: max 3x3/2, conv 3x3/2 or none", str, choices=("max", "conv", "none")
    ),
    "width": Field(
        None, "features of the first stage; each later stage doubles them", int, at_least=1
    ),
    "groups": Field(None, "groups of a bottleneck's 3x3", int, at_least=1),
    "width_per_group": Field(None, "channels of a group where features = 64", int, at_least=1),
    "se_ratio": Field(
        None, "squeeze-and-excitation's share of channels; 0: none", float, at_least=0, at_most=1
    ),
    "stochastic_depth": Field(
        None, "rate of dropping the last block's branch", float, at_least=0, below=1
    ),
    "dropout": Field(
        None, "rate of dropping pooled features before the head", float, at_least=0, below=1
    ),
    "norm": Field(None, "normalisation", str, choices=("batch", "group", "none")),
    "norm_momentum": Field(
        None, "share of the old running statistics kept", float, at_least=0, below=1
    ),
    "norm_epsilon": Field(None, "added to the variance", float, above=0),
    "norm_group_size": Field(
        None, "images that share statistics; None: the global batch", int, at_least=1
    ),
    "norm_channel_groups": Field(None, "channel groups of norm = group", int, at_least=1),
    "conv_bias": Field(None, "whether convolutions have a bias", bool),
    "zero_init": Field(None, "whether residual branches start at zero", bool),
    "scan_blocks": Field(None, "compile equal blocks once, for very deep nets", bool),
}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Holds fields of `ResNet` against their types, their ranges and each other.

    Args:
      fields: name -> value, every field of `RESNET_FIELDS` present; None only where `ResNet` gives
        it a meaning.

    Raises:
      UserError: names the field, its value and what is legal.
    """
    for name, field in RESNET_FIELDS.items():
        value = fields[name]
        fault = field.fault(value)
        if value is None and name not in ("stem_width", "stem_pool", "norm_group_size"):
            fault = "must not be None"
        if fault:
            raise UserError(f"model.{name} = {value!r}: {fault} ({field.help})")
    _check_numbers(fields)
    _check_blocks(fields)
    _check_norm(fields)


def check_names(names: Mapping[str, Any]) -> None:
    """Raises `UserError` for a name that is no field of `ResNet`, with the nearest that are."""
    known = {*RESNET_FIELDS, "num_classes", "dtype", "param_dtype", "axis_name"}
    for name in names:
        if name not in known:
            raise UserError(
                f"model.{name} is not a field of ResNet; {nearest(name, known)}".rstrip("; ")
            )


def as_dtype(field: str, value: Any) -> Any:
    """Returns a JAX dtype from a name or a dtype; raises `UserError` unless it is one of
    `DTYPES`.
    """
    try:
        name = jnp.dtype(value).name if value is not None else "None"
    except TypeError:
        name = str(value)
    if name not in DTYPES:
        raise UserError(f"model.{field} = {value!r}: must be one of {', '.join(DTYPES)}")
    return jnp.dtype(name)


def _check_numbers(fields: Mapping[str, Any]) -> None:
    classes = fields["num_classes"]
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
        raise UserError(
            f"model.num_classes = {classes!r}: must be a whole number, 0 for pooled features"
            " instead"
        )
    if not fields["stage_sizes"]:
        raise UserError("model.stage_sizes = (): must name at least one stage")


def _check_blocks(fields: Mapping[str, Any]) -> None:
    groups, per_group, width = fields["groups"], fields["width_per_group"], fields["width"]
    if fields["block"] == "basic":
        for name, neutral in (("groups", 1), ("width_per_group", 64)):
            if fields[name] != neutral:
                raise UserError(
                    f"model.{name} = {fields[name]}: basic blocks have no groups; "
                    f"set model.{name} = {neutral} or model.block = 'bottleneck'"
                )
    elif width * per_group // 64 < 1:
        raise UserError(
            f"model.width_per_group = {per_group}: leaves no channel a group where features ="
            f" {width} (features * width_per_group / 64); choose at least {-(-64 // width)}"
        )
    elif groups > 1 and width * per_group % 64:
        raise UserError(
            f"model.groups = {groups}: does not divide the channels, since width * width_per_group"
            f" / 64 = {width} * {per_group} / 64 is no whole number; choose a width_per_group that"
            " makes it one"
        )
    stem = fields["stem_width"] or width
    out = width * (4 if fields["block"] == "bottleneck" else 1)
    if fields["residual"] and fields["shortcut"] in ("A", "A_pool") and stem > out:
        raise UserError(
            f"model.shortcut = {fields['shortcut']!r}: cannot go from the stem's {stem} channels"
            f" down to {out}; set model.stem_width <= {out} or model.shortcut = 'B'"
        )
    if fields["stochastic_depth"] and not fields["residual"]:
        raise UserError(
            f"model.stochastic_depth = {fields['stochastic_depth']}: a plain net has no shortcut"
            " past a dropped branch; set it to 0 or model.residual = True"
        )
    if fields["stem"] == "deep" and stem % 2:
        raise UserError(
            f"model.stem_width = {stem}: a deep stem starts with half of it; choose an even number"
        )


def _check_norm(fields: Mapping[str, Any]) -> None:
    norm = fields["norm"]
    for name in ("norm_group_size", "axis_name"):
        if fields[name] is not None and norm != "batch":
            raise UserError(
                f"model.{name} = {fields[name]!r}: only norm = 'batch' has it, not {norm!r}; set it"
                " to None"
            )
    if fields["norm_group_size"] is not None and fields["axis_name"] is not None:
        raise UserError(
            f"model.norm_group_size = {fields['norm_group_size']}: contradicts axis_name = "
            f"{fields['axis_name']!r}, which averages over devices; set one of the two to None"
        )
    if norm == "group":
        # Every normalised width but a deep stem's first two is a multiple of the narrowest.
        for where, channels in _narrowest_widths(fields).items():
            if channels % fields["norm_channel_groups"]:
                raise UserError(
                    f"model.norm_channel_groups = {fields['norm_channel_groups']}: does not divide"
                    f" the {channels} channels of {where}; choose a divisor of {channels}"
                )


def _narrowest_widths(fields: Mapping[str, Any]) -> dict[str, int]:
    stem = fields["stem_width"] or fields["width"]
    widths = {
        "the stem": stem // 2 if fields["stem"] == "deep" else stem,
        "the first stage": fields["width"],
    }
    if fields["block"] == "bottleneck":
        inner = fields["width"] * fields["width_per_group"] // 64 * fields["groups"]
        widths["the first stage's bottleneck"] = inner
    return widths
