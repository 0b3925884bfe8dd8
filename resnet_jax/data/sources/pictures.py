"""Images that belong to no data set: files, PIL images and arrays, of no known class."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from resnet_jax.data.images import preprocess
from resnet_jax.data.sources import tree
from resnet_jax.data.sources.source import Example, Source
from resnet_jax.errors import UserError


class Pictures(Source):
    """Images of any kind and size, each of label 0.

    Args:
      images: paths, PIL images and uint8 arrays, in any mixture.
      channels: that they are decoded to, 1 or 3.
    """

    name, split, classes = "pictures", "given", ("",)

    def __init__(self, images: Sequence[Any], channels: int):
        self._images, self.channels = images, channels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: int) -> Example:
        return Example(preprocess.read(self._images[place], self.channels, self.where(place)), 0)

    def where(self, place: int) -> str:
        return tree.printable(preprocess.name_of(self._images[place], place))


def find(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Finds picture files.

    Args:
      words: files, whatever they are called; folders, of which files with a picture's suffix are
        taken, at any depth, behind links too, without hidden ones; and patterns such as
        "new/*.jpg" or "**/*.png".

    Returns:
      The paths in the order of the words, those of a folder or a pattern sorted; and a line for
      each folder that holds other files too.

    Raises:
      UserError: there is no such file, a folder holds no picture, or a pattern matches nothing.
    """
    paths, notes = [], []
    for word in words:
        # A file whose name looks like a pattern is meant itself.
        matches = [word] if os.path.exists(word) else sorted(glob.glob(word, recursive=True))
        if not matches:
            kind = "nothing matches this pattern" if glob.has_magic(word) else "no such file"
            raise UserError(f"{tree.printable(word)}: {kind}; check the path")
        for match in matches:
            if os.path.isdir(match):
                found, others = _in_folder(match)
                paths += found
                if others:
                    notes.append(
                        f"passed over in {tree.printable(match)}: {others:,} files without a"
                        " picture's suffix"
                    )
            else:
                paths.append(match)
    return paths, notes


def _in_folder(folder: str) -> tuple[list[str], int]:
    """Returns the pictures under a folder, sorted, and the number of other files."""

    def refuse(error: OSError) -> None:
        raise tree.cannot_be_read(error.filename, error) from error

    found, others = [], 0
    for directory, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        above = {os.path.realpath(place) for place in (directory, *Path(directory).parents)}
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            # A link back up would lead round in circles.
            and os.path.realpath(os.path.join(directory, name)) not in above
        )
        names = sorted(name for name in files if not name.startswith("."))
        pictures = [name for name in names if name.lower().endswith(tree.SUFFIXES)]
        found += [str(Path(directory, name)) for name in pictures]
        others += len(names) - len(pictures)
    if not found:
        raise UserError(
            f"{tree.printable(folder)}: holds no pictures ({', '.join(tree.SUFFIXES)}); name"
            " another folder, or the files themselves"
        )
    return found, others
