"""Splits and parts of them, written as TFDS writes them: "train", "train[:90%]",
"test[100:-100]".
"""

import dataclasses
import re

from resnet_jax.errors import UserError, nearest

_TEXT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<low>-?\d{1,15}%?)?:(?P<high>-?\d{1,15}%?)?\])?")


@dataclasses.dataclass(frozen=True)
class Part:
    """A named split and the bounds within it, as written; None is an open end."""

    name: str
    low: str | None = None
    high: str | None = None

    def bounds(self, length: int) -> tuple[int, int]:
        """Returns the (start, stop) of this part in a split of `length` examples."""
        low = 0 if self.low is None else _position(self.low, length)
        high = length if self.high is None else _position(self.high, length)
        return low, max(low, high)

    @property
    def is_whole(self) -> bool:
        return self.low is None and self.high is None

    def __str__(self) -> str:
        return self.name if self.is_whole else f"{self.name}[{self.low or ''}:{self.high or ''}]"


def parse(text: str, field: str) -> Part:
    """Reads the text of a split.

    Args:
      text: a split's name, with or without bounds in examples or whole percent; negative ones count
        from the end, and a percentage is rounded to the closest example, as TFDS does.
      field: the field's name, for the message.

    Raises:
      UserError: `text` has another form.
    """
    match = _TEXT.fullmatch(text.strip())
    percents = (
        [b[:-1] for b in match.group("low", "high") if b and b.endswith("%")] if match else []
    )
    if match is None or any(abs(int(percent)) > 100 for percent in percents):
        raise UserError(
            f"config.data.{field} = {text!r}: must be a split's name, or a part of it such as "
            "'train[:90%]' or 'train[1000:]'"
        )
    return Part(*match.group("name", "low", "high"))


def absent(field: str, name: str, known: list[str], where: str) -> UserError:
    """Returns the error for a split that `where` does not have."""
    hint = nearest(name, known) or f"it has {', '.join(sorted(known)[:12])}"
    return UserError(f"config.data.{field} = {name!r}: no such split in {where}; {hint}")


def _position(bound: str, length: int) -> int:
    if bound.endswith("%"):
        place = round(int(bound[:-1]) * length / 100)
    else:
        place = int(bound)
    return min(max(place + length if bound.startswith("-") else place, 0), length)
