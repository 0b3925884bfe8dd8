"""How a module states a field where it declares it, and how values are held to the fields."""

import dataclasses
import functools
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax.numpy as jnp

from resnet_jax.errors import UserError, nearest
from resnet_jax.fields import Field

DTYPES = ("float32", "bfloat16", "float16", "float64")
REQUIRED = dataclasses.MISSING
Module = TypeVar("Module", bound=nn.Module)


def field(default: Any, help: str, more: str = "", *, recipe: bool = True, **legal: Any) -> Any:
    """States a field of a module: the annotation gives its type, this all the rest.

    Args:
      default: its default, or `REQUIRED`.
      help: one line for a reader, which messages quote.
      more: what `help(module)` adds to it.
      recipe: whether a recipe may set it; such a field is checked, any other is a Python object.
      **legal: `choices` and bounds of `fields.Field`.
    """
    metadata = {"field": Field(default, help, **legal), "more": more, "recipe": recipe}
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def fields_of(module: type[nn.Module]) -> dict[str, Field]:
    """Returns the fields of a module that a recipe may set, by name."""
    return {
        given.name: dataclasses.replace(given.metadata["field"], type=_kind(given.type))
        for given in dataclasses.fields(module)
        if given.metadata.get("recipe")
    }


def names_of(module: type[nn.Module]) -> list[str]:
    """Returns the names of the fields that a module states."""
    return [given.name for given in dataclasses.fields(module) if "field" in given.metadata]


def documented(module: type[Module]) -> type[Module]:
    """Decorates a module: its docstring gets the fields as "Attributes", its own ones first."""
    stated = [given for given in dataclasses.fields(module) if "field" in given.metadata]
    lines = ["    Attributes:"]
    for given in sorted(stated, key=lambda given: given.kw_only):
        help, more = given.metadata["field"].help, given.metadata["more"]
        text = f"{given.name}: {help}{more and '; '}{more}."
        lines.append(textwrap.fill(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 8))
    before, raises, after = (module.__doc__ or "").partition("    Raises:")
    module.__doc__ = before + "\n".join(lines) + "\n\n" + raises + after
    return module


def settle(module: nn.Module, room: str) -> None:
    """Holds a module's fields to their types and ranges, as it is made.

    NumPy's numbers become Python's, lists tuples, names of dtypes dtypes.

    Args:
      module: the module, its fields set.
      room: what messages put before a field's name.

    Raises:
      UserError: names the field, its value and what is legal.
    """
    for name, stated in fields_of(type(module)).items():
        value = _plain(getattr(module, name))
        object.__setattr__(module, name, value)
        if name == "norm" and callable(value):
            continue
        if fault := stated.fault(value):
            raise UserError(f"{room}.{name} = {value!r}: {fault} ({stated.help})")
    for name in ("dtype", "param_dtype"):
        object.__setattr__(module, name, _as_dtype(f"{room}.{name}", getattr(module, name)))


def check_names(module: type[nn.Module], names: Mapping[str, Any]) -> None:
    """Raises `UserError` for a name that is no field of the module, with the nearest that are."""
    known = {given.name for given in dataclasses.fields(module)} - {"parent"}
    for name in names:
        if name not in known:
            raise UserError(
                f"model.{name} is not a field of {module.__name__}; {nearest(name, known)}".rstrip(
                    "; "
                )
            )


def check_shared(module: Any, room: str) -> None:
    """Raises `UserError` where the fields that blocks and networks share contradict each other.

    Args:
      module: the block or the network.
      room: as for `settle`.
    """
    known = module.norm_kind.fields if module.norm_kind else ()
    for name in ("norm_group_size", "axis_name"):
        if getattr(module, name) is not None and name not in known:
            raise UserError(
                f"{room}.{name} = {getattr(module, name)!r}: {room}.norm = {module.norm!r} does not"
                " have it, norm = 'batch' does; set it to None"
            )
    if module.eca and module.se_ratio:
        raise UserError(
            f"{room}.eca = True: contradicts {room}.se_ratio = {module.se_ratio}, a gate of another"
            " kind; set one of the two off"
        )
    if module.norm_group_size is not None and module.axis_name is not None:
        raise UserError(
            f"{room}.norm_group_size = {module.norm_group_size}: contradicts axis_name ="
            f" {module.axis_name!r}, which averages over devices; set one of the two to None"
        )


def check_divides(divisor: int, channels: int, field: str) -> None:
    """Raises `UserError` unless the value of a field divides a number of channels."""
    if channels % divisor:
        raise UserError(
            f"{field} = {divisor}: does not divide the {channels} channels; choose a divisor"
        )


def _kind(annotation: Any) -> Any:
    """Returns what a `Field` calls the type of an annotation; of a union, its first member's."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    return tuple[members[0], ...] if origin is Sequence else members[0] if origin else annotation


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _as_dtype(name: str, value: Any) -> Any:
    try:
        found = jnp.dtype(value).name if value is not None else "None"
    except TypeError:
        found = str(value)
    if found not in DTYPES:
        raise UserError(f"{name} = {value!r}: must be one of {', '.join(DTYPES)}")
    return jnp.dtype(found)
