"""Checksums of a directory's files, by which damage is noticed."""

import hashlib
import json

from etils import epath

from resnet_jax.errors import UserError

FILE = "digest.json"
# What a path in a damaged directory can be: gone, or of the wrong kind. Any other error is one of
# the disk, the network or the permissions, and says nothing about the file.
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def write_checksums(directory: epath.Path, leave_out: tuple[str, ...] = ()) -> None:
    """Writes the SHA-256 of every file below a directory into its `digest.json`.

    Args:
      directory: a finished checkpoint.
      leave_out: names of files that change later.
    """
    files = _files(directory, {FILE, *leave_out})
    digests = {str(path.relative_to(directory)): _digest(path) for path in files}
    (directory / FILE).write_text(json.dumps(digests, indent=1))


def find_damage(directory: epath.Path) -> str | None:
    """Returns what is wrong with the files of a directory, or None.

    Notices a missing, truncated or changed file, down to one flipped bit.

    Raises:
      UserError: a file may be whole and cannot be read: no permission, a stale mount, a bad disk.
    """
    name = FILE
    try:
        digests = json.loads((directory / FILE).read_text())
        if not isinstance(digests, dict) or not digests:
            return f"{FILE} holds no table"
        for name, digest in digests.items():
            if _digest(directory / name) != digest:
                return f"{name} is not as it was written"
    except ABSENT:
        return f"{name} is missing"
    except (ValueError, RecursionError) as error:
        return f"{FILE} holds no table ({error})"
    except OSError as error:
        raise unreadable(directory / name, error) from error
    return None


def unreadable(path: epath.Path, error: OSError) -> UserError:
    """Returns the error to raise where a path cannot be read, though it may well be whole."""
    return UserError(
        f"{path} cannot be read ({error.strerror or error}): make it readable and start again;"
        " nothing was moved or removed"
    )


def _files(directory: epath.Path, leave_out: set[str]) -> list[epath.Path]:
    found = []
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            found += _files(path, leave_out)
        elif path.name not in leave_out:
            found.append(path)
    return found


def _digest(path: epath.Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
