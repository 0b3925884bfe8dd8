"""The seal of a directory: a digest of its files, by which damage is noticed."""

import hashlib
import json

from etils import epath

from resnet_jax.errors import UserError

SEAL = "digest.json"
# Orbax writes these after the seal, and no array is read by them.
_UNSEALED = (SEAL, "commit_success.txt", "_CHECKPOINT_METADATA")


def seal(directory: epath.Path) -> None:
    """Writes the SHA-256 of every file below a directory into its `digest.json`."""
    digests = {str(path.relative_to(directory)): _digest(path) for path in _files(directory)}
    (directory / SEAL).write_text(json.dumps(digests, indent=1))


def fault(directory: epath.Path) -> str | None:
    """Returns what is wrong with the files of a sealed directory, or None.

    Notices a missing, truncated or changed file, down to one flipped bit.

    Raises:
      UserError: a file is there and cannot be read, which is a fault of the disk or of permissions,
        not of the file.
    """
    try:
        digests = json.loads((directory / SEAL).read_text())
        if not isinstance(digests, dict):
            return f"{SEAL} holds no table"
        for name, digest in digests.items():
            if not (directory / name).exists():
                return f"{name} is missing"
            if _digest(directory / name) != digest:
                return f"{name} is not as it was written"
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except ValueError as error:
        return f"{SEAL} holds no table ({error})"
    except OSError as error:
        raise UserError(
            f"checkpoint {directory} cannot be read ({error.strerror or error}): mend the disk or"
            " the permissions"
        ) from error
    return None


def _files(directory: epath.Path) -> list[epath.Path]:
    found = []
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            found += _files(path)
        elif path.name not in _UNSEALED:
            found.append(path)
    return found


def _digest(path: epath.Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
