"""The files of a folder tree: found in one pass, and kept in some 30 bytes each.

ImageNet's training tree has 1.28 million files, and every start of every process reads it: a `Path`
a file would take 300 MiB and most of the time.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from resnet_jax.errors import UserError

# What is taken for an image by its name; what it is, its content decides.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Most names end so, and are found without a copy in lower case.
_USUAL = (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
_SECONDS_BETWEEN_LINES = 5.0
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}


def as_text(path: str) -> str:
    """Returns a path as UTF-8 can hold it: other bytes appear as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def printable(path: str) -> str:
    """Returns a path as one line that any terminal takes: control characters, too, appear as
    \\xNN.
    """
    return as_text(path).translate(_CONTROL)


def named(names: Iterable[str], most: int = 3) -> str:
    """Returns the first of `names`, and "..." where there are more."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


class Files(Sequence[pathlib.Path]):
    """Paths ROOT/FOLDER/NAME, folder by folder.

    Args:
      root: the directory of the folders.
      folders: their names; the place of one is the label of its files.
      names: of each folder, the files' names in order, as bytes that each end in a zero.

    Attributes:
      root, folders: as given.
      labels: int32 [n].
    """

    def __init__(self, root: pathlib.Path, folders: Sequence[str], names: Sequence[bytes]):
        self.root, self.folders = root, list(folders)
        self._names = b"".join(names)
        self._ends = np.flatnonzero(np.frombuffer(self._names, np.uint8) == 0)
        self._starts = np.cumsum([0, *map(len, names)])
        counts = [folder.count(b"\0") for folder in names]
        self.labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> pathlib.Path:
        return pathlib.Path(self.path(range(len(self))[place]))

    def relative(self, place: int) -> str:
        """Returns FOLDER/NAME."""
        start = self._ends[place - 1] + 1 if place else 0
        name = os.fsdecode(self._names[start : self._ends[place]])
        return f"{self.folders[self.labels[place]]}/{name}"

    def path(self, place: int) -> str:
        return f"{self.root}/{self.relative(place)}"

    def read(self, place: int) -> bytes:
        """Returns the file's content; raises `UserError` where it cannot be read."""
        try:
            with open(self.path(place), "rb", buffering=0) as file:
                return file.readall()
        except OSError as error:
            raise cannot_be_read(self.path(place), error) from error

    def size(self, place: int) -> int:
        """Returns the file's size in bytes.

        Raises:
          UserError: the file is gone, or its folder cannot be searched.
        """
        try:
            return os.stat(self.path(place)).st_size
        except OSError as error:
            raise cannot_be_read(self.path(place), error) from error

    def names(self, folder: int) -> bytes:
        """Returns the names in a folder, each with a zero at its end."""
        return self._names[self._starts[folder] : self._starts[folder + 1]]

    def chosen(self, mask: np.ndarray) -> "Files":
        """Returns the files where `mask`, bool [n], is True."""
        names, place = [], 0
        for folder in range(len(self.folders)):
            whole = self.names(folder).split(b"\0")[:-1]
            kept = mask[place : place + len(whole)]
            names.append(b"".join(n + b"\0" for n, keep in zip(whole, kept, strict=True) if keep))
            place += len(whole)
        return Files(self.root, self.folders, names)


def cannot_be_read(path: str, error: OSError) -> UserError:
    """Returns the error for a file or folder that the system does not let us read."""
    return UserError(
        f"{printable(path)}: cannot be read ({error.strerror}); restore it, or its permissions"
    )


@dataclasses.dataclass
class _PassedOver:
    """Counts what lies in a tree and is no image, by kind, with the first path of each."""

    found: dict[str, list] = dataclasses.field(default_factory=dict)

    def add(self, kind: str, path: str) -> None:
        count = self.found.setdefault(kind, [0, path])
        count[0] += 1
        count[1] = min(count[1], path)

    def line(self, root: pathlib.Path) -> list[str]:
        if not self.found:
            return []
        kinds = [
            f"{kind}: {count:,} ({printable(path)}{', ...' if count > 1 else ''})"
            for kind, (count, path) in self.found.items()
        ]
        return [f"passed over in {root}: {'; '.join(kinds)}"]


def scan(
    root: pathlib.Path, folders: Sequence[str], say: Callable[[str], None]
) -> tuple[Files, list[str]]:
    """Finds the images in the folders of a split.

    Args:
      root: the split's directory.
      folders: the class folders, in the order of the labels; one that does not exist has no images.
      say: told every few seconds how far it is.

    Returns:
      The files, by name in each folder, and a line on what is no image, where there is such.

    Raises:
      UserError: a folder cannot be read, or a link leads nowhere.
    """
    names, passed, count, said = [], _PassedOver(), 0, time.monotonic()
    for number, folder in enumerate(folders):
        found = _images(root, folder, passed)
        names.append(os.fsencode("\0".join([*found, ""])))
        count += len(found)
        if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say(f"reading {root}: {count:,} files in {number + 1:,} of {len(folders):,} folders")
    for loose in _directory(str(root)):
        if loose.name.lower().endswith(SUFFIXES) and loose.name[0] != "." and loose.is_file():
            passed.add("images outside of the class folders", loose.name)
    return Files(root, folders, names), passed.line(root)


def _images(root: pathlib.Path, folder: str, passed: _PassedOver) -> list[str]:
    entries = _directory(f"{root}/{folder}")
    found = [
        entry.name
        for entry in entries
        if entry.name.endswith(_USUAL)
        and entry.is_file(follow_symlinks=False)
        and entry.name[0] != "."
    ]
    if len(found) < len(entries):
        usual = set(found)
        rest = [entry for entry in entries if entry.name not in usual]
        found += [entry.name for entry in rest if _is_image(entry, folder, passed)]
    return sorted(found)


def _directory(path: str) -> list[os.DirEntry]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot_be_read(path, error) from error


def _is_image(entry: os.DirEntry, folder: str, passed: _PassedOver) -> bool:
    path = f"{folder}/{entry.name}"
    if entry.name.startswith("."):
        passed.add("dot files", path)
    elif entry.is_symlink() and not os.path.exists(entry.path):
        raise UserError(
            f"{printable(entry.path)}: is a link that leads nowhere; restore what it points to"
            f" ({printable(os.readlink(entry.path))}), or remove it"
        )
    elif entry.is_dir():
        passed.add("deeper folders", path)
    elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
        return True
    else:
        passed.add("files with another suffix", path)
    return False
