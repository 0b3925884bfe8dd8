"""Files that are whole or not there at all."""

import os

from etils import epath


def write_atomically(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a file so that a reader, or a start after a power cut, finds all of it or none.

    The content goes into a draft beside the file, the draft to the disk, and then takes the file's
    name. A bucket shows an object only when it is complete, so there the text is written as it is.

    Args:
      path: a local path, or the address of an object in a bucket.
      content: of the file; text is written as UTF-8.

    Raises:
      OSError: the directory does not exist, cannot be written to, or the disk is full.
    """
    encoded = content.encode() if isinstance(content, str) else content
    if "://" in str(path):
        epath.Path(path).write_bytes(encoded)
        return
    draft = f"{os.fspath(path)}.draft"
    try:
        with open(draft, "wb") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        if os.path.exists(draft):
            os.unlink(draft)
        raise
