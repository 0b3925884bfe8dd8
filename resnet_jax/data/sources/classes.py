"""Lists of class names: `classes.txt`, one name a line in the order of the labels."""

import collections
import pathlib

from resnet_jax.errors import UserError


def read(path: pathlib.Path) -> list[str]:
    """Reads a list of class names; a byte-order mark and empty lines at the end are no part of it.

    Raises:
      UserError: the file is not UTF-8, lists nothing, has an empty line between names, or lists a
        name twice.
    """
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check it") from error
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
