"""The one exception for what a user can fix, and what several of its messages share."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


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


def first_line(error: BaseException) -> str:
    """Returns the first line of another library's error, or its type where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextlib.contextmanager
def writing(directory: str) -> Iterator[None]:
    """Says of an `OSError` inside that `directory`, such as "--output_dir=out", refuses files.

    Raises:
      UserError: in place of the `OSError`, with its reason.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written to ({error.strerror or error}); name another, or make"
            " it writable"
        ) from error
