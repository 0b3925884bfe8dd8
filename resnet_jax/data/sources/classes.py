"""Files of class names: `classes.txt`, one name a line in the order of the labels, and maps."""

import collections
import pathlib
from collections.abc import Sequence

from resnet_jax.data.sources import imagenet
from resnet_jax.errors import UserError, nearest


def read(path: pathlib.Path) -> list[str]:
    """Reads a list of class names; a byte-order mark and empty lines at the end are no part of it.

    Raises:
      UserError: the file is not UTF-8, lists nothing, has an empty line between names, or lists a
        name twice.
    """
    names = _lines(path)
    while names and not names[-1]:
        names.pop()
    if "\0" in "".join(names):
        raise UserError(f"{path}: holds zero bytes; save it as plain text")
    twice = [name for name, count in collections.Counter(names).items() if count > 1 and name]
    wrong = (
        "lists no class"
        if not names
        else f"line {names.index('') + 1} is empty"
        if "" in names
        else f"lists {twice[0]!r} twice"
        if twice
        else None
    )
    if wrong:
        raise UserError(f"{path}: {wrong}; it needs one name a line, in the order of the labels")
    return names


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check it") from error


def read_map(
    path: pathlib.Path, ours: Sequence[str], theirs: Sequence[str]
) -> list[tuple[int, ...]]:
    """Reads which classes of a network the classes of a data set are.

    A line is the data's class, a tab, and the network's: by name, by ImageNet's WordNet id or by
    number from 0; without a tab the two are called the same. A class of the data that stands on
    several lines is all of theirs together.

    Args:
      path: the file.
      ours: the names of the data's classes.
      theirs: the names of the network's.

    Returns:
      Of each class of the data, the places of the network's.

    Raises:
      UserError: the file cannot be read, names a class that does not exist, gives one of the
        network's to several, or lacks one of the data's.
    """
    found: dict[int, list[int]] = {place: [] for place in range(len(ours))}
    taken: dict[int, int] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line:
            continue
        name, _, other = (part.strip() for part in line.partition("\t"))
        where = f"{path}, line {number}"
        place = _place(name, ours, f"{where}: the data")
        member = _place(other or name, theirs, f"{where}: the network", by_number=True)
        if taken.setdefault(member, place) != place:
            raise UserError(
                f"{where}: {theirs[member]!r} is {ours[taken[member]]!r} already; leave one out"
            )
        found[place].append(member)
    if lacking := [ours[place] for place, members in found.items() if not members]:
        raise UserError(
            f"{path}: has no line for {len(lacking)} classes of the data, such as {lacking[0]!r};"
            " add them"
        )
    return [tuple(dict.fromkeys(members)) for members in found.values()]


def _place(name: str, names: Sequence[str], where: str, by_number: bool = False) -> int:
    for form in (name, *imagenet.readable([name])):
        if form in names:
            return names.index(form)
    if by_number and name.isdecimal() and int(name) < len(names):
        return int(name)
    raise UserError(f"{where} has no class {name!r}; {nearest(name, names)}".rstrip("; "))
