"""Config fields: each room states its own with `Field`, and `check` compares values with them."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from resnet_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Needs:
    """What another field of the same section must be, for a field to have an effect.

    Attributes:
      name: of the other field.
      values: those of it with which there is an effect; () for any but None, False and 0.
    """

    name: str
    values: tuple = ()

    def are_met(self, section: Mapping[str, Any]) -> bool:
        value = section[self.name]
        return value in self.values if self.values else bool(value)


@dataclasses.dataclass(frozen=True)
class Field:
    """One config field: its default, its type, and the values it may take.

    Attributes:
      default: the value when a recipe says nothing. None makes the field optional.
      help: one line for a reader.
      type: bool, int, float, str or `tuple[item, ...]`; None takes the default's own type.
        An int is a legal float.
      optional: whether None is legal although the default is not None.
      choices: the legal values, where they are few.
      at_least, above, at_most, below: bounds of a number, or of every item of a tuple.
      needs: without which it has no effect; one of several is enough.
    """

    default: Any
    help: str
    type: Any = None
    optional: bool = False
    choices: tuple = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    needs: tuple[Needs, ...] = ()

    @property
    def kind(self) -> Any:
        return self.type or type(self.default)

    @property
    def item_kind(self) -> Any:
        """The type of a tuple's items, else that of the value."""
        return typing.get_args(self.kind)[0] if self.is_tuple else self.kind

    @property
    def is_tuple(self) -> bool:
        return typing.get_origin(self.kind) is tuple

    def plain(self, value: Any) -> Any:
        """Returns a value that a recipe computed, such as `512 / 8` or one of NumPy, in our types.

        What fits no type is returned as it is; `type_fault` tells.
        """
        if hasattr(value, "tolist"):  # NumPy's and JAX's scalars and arrays.
            value = value.tolist()
        if self.is_tuple and isinstance(value, list | tuple):
            return tuple(_plain(item, self.item_kind) for item in value)
        return _plain(value, self.kind)

    def type_fault(self, value: Any) -> str | None:
        """Returns what type `value` must be of as "must be ...", or None when it is of it."""
        if value is None:
            return None
        is_sequence = isinstance(value, tuple | list)
        items = value if self.is_tuple and is_sequence else [value]
        fits = self.is_tuple <= is_sequence and all(_is(item, self.item_kind) for item in items)
        return None if fits else f"must be {_say(self.kind)}"

    def fault(self, value: Any) -> str | None:
        """Returns what is wrong with `value` as "must be ...", or None when it is legal."""
        if value is None:
            is_legal = self.optional or self.default is None
            return None if is_legal else f"must be {_say(self.kind)}, not None"
        if fault := self.type_fault(value):
            return fault
        for item in value if self.is_tuple else [value]:
            if self.choices and item not in self.choices:
                return self._wrong_choice(item)
            if isinstance(item, float) and not math.isfinite(item):
                return "must be finite"
            for bound, word, legal in (
                (self.at_least, "at least", lambda a, b: a >= b),
                (self.above, "above", lambda a, b: a > b),
                (self.at_most, "at most", lambda a, b: a <= b),
                (self.below, "below", lambda a, b: a < b),
            ):
                if bound is not None and not legal(item, bound):
                    return f"must be {word} {bound:g}"
        return None

    def _wrong_choice(self, item: Any) -> str:
        fault = f"must be one of {', '.join(map(str, self.choices))}"
        hint = nearest(str(item), map(str, self.choices))
        return f"{fault}; {hint}" if hint.startswith("did you mean") else fault


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def without_effect(
    section: str, values: Mapping[str, Any], table: Mapping[str, Field]
) -> dict[str, str]:
    """Returns dotted name -> why, for each field that the others of its section leave unused."""
    found = {}
    for name, field in table.items():
        if field.needs and not any(needs.are_met(values) for needs in field.needs):
            others = " or ".join(
                f"config.{section}.{needs.name}"
                + (f" = {' or '.join(map(str, needs.values))}" if needs.values else "")
                for needs in field.needs
            )
            found[f"{section}.{name}"] = f"it needs {others}"
    return found


def _plain(value: Any, kind: type) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return int(value) if kind is int and isinstance(value, float) and value.is_integer() else value


_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def _say(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a tuple of {_WORDS[typing.get_args(kind)[0]].removeprefix('a ')}s"
    return _WORDS[kind]


def check(room: str, values: Mapping[str, Any], table: Mapping[str, Field]) -> None:
    """Checks `values` by a table of fields.

    Args:
      room: the dotted prefix for messages, for example "optimizer"; "" for the top level.
      values: field name -> value.
      table: field name -> `Field`.

    Raises:
      UserError: a field is unknown, of the wrong type, or out of range.
    """
    prefix = f"config.{room}." if room else "config."
    for name, value in values.items():
        if name not in table:
            raise UserError(f"{prefix}{name} is not a field; {nearest(name, table)}".rstrip("; "))
        if fault := table[name].fault(value):
            raise UserError(f"{prefix}{name} = {value!r}: {fault} ({table[name].help})")
