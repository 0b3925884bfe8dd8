"""The one exception for what a user can fix, and the suggestion of nearest names."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can fix.

    The message is one line that names the field or file, the value found and the remedy.
    `launch.py` prints it without a traceback and exits with status 1.
    """


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """Returns a clause that suggests the known names nearest to `name`, or lists a few.

    Args:
      name: what the user wrote.
      known: the names that exist.
      most: how many suggestions at the most.

    Returns:
      "did you mean 'a' or 'b'?", or "known: a, b, c" when nothing is near and the list is short, or
      "".
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(match) for match in close)}?"
    return f"known: {', '.join(known)}" if 0 < len(known) <= 12 else ""
