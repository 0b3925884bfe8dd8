"""What a page is made of."""

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure, or why there is none.

    Attributes:
      name: of its file, without the suffix.
      title: of the figure.
      caption: how to read it.
      png: the picture; None: it is missing.
      why: what keeps it from being drawn.
    """

    name: str
    title: str
    caption: str
    png: bytes | None = None
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Card:
    """A picture with lines of text below.

    Attributes:
      png: the picture.
      lines: of text.
      is_right: whether the answer that it shows is right.
    """

    png: bytes
    lines: tuple[str, ...]
    is_right: bool


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures side by side, or why there are none.

    Attributes:
      name: of its files, without number and suffix.
      title, caption: as for a figure.
      cards: the pictures.
      why: what keeps them from being shown.
      pairs: whether each picture is two, side by side.
    """

    name: str
    title: str
    caption: str
    cards: tuple[Card, ...] = ()
    why: str = ""
    pairs: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text, or why there are none.

    Attributes:
      title, caption: as for a figure.
      header: names of the columns.
      rows: of cells.
      why: what keeps it from being filled, or that there is nothing to tell.
      is_folded: whether it opens on a click.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[Any]] = ()
    why: str = ""
    is_folded: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
      key: names it in links.
      title: the heading.
      parts: figures, galleries and tables.
      intro: text below the heading.
      command: a command below that.
    """

    key: str
    title: str
    parts: tuple[Figure | Gallery | Table, ...]
    intro: str = ""
    command: str = ""

    @property
    def three(self) -> bool:
        """Whether three figures stand side by side where there is room, so that no place is left
        empty.
        """
        return sum(isinstance(part, Figure) for part in self.parts) % 3 == 0


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
      title: the heading.
      subtitle: a line below it.
      facts: name -> figure, shown large.
      notes: sentences that a reader should know before the figures.
      sections: what follows.
    """

    title: str
    subtitle: str
    facts: dict[str, str]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
