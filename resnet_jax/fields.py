"""Config fields: each room states its own with `Field`, and `check` compares values with them."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from resnet_jax.errors import UserError, nearest


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

    @property
    def kind(self) -> Any:
        return self.type or type(self.default)

    def fault(self, value: Any) -> str | None:
        """Returns what is wrong with `value` as "must be ...", or None when it is legal."""
        if value is None:
            return (
                None
                if self.optional or self.default is None
                else f"must be {_say(self.kind)}, not None"
            )
        items = [value]
        item_kind = self.kind
        if typing.get_origin(item_kind) is tuple:
            if not isinstance(value, tuple | list):
                return f"must be {_say(self.kind)}"
            items, item_kind = list(value), typing.get_args(item_kind)[0]
        for item in items:
            if not _is(item, item_kind):
                return f"must be {_say(self.kind)}"
            if self.choices and item not in self.choices:
                return f"must be one of {', '.join(map(str, self.choices))}"
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


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def _say(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a tuple of {_WORDS[typing.get_args(kind)[0]].removeprefix('a ')}s"
    return _WORDS[kind]


def check(room: str, values: Mapping[str, Any], table: Mapping[str, Field]) -> None:
    """Holds `values` against a table of fields.

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
        fault = table[name].fault(value)
        if fault:
            raise UserError(f"{prefix}{name} = {value!r}: {fault} ({table[name].help})")
