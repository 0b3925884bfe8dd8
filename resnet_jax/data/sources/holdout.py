"""Which files of a single folder of classes are held out for evaluation."""

import hashlib
import itertools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from resnet_jax.data.images import decode
from resnet_jax.data.sources.tree import Files, named

RULES = ("content", "name", "position")

# A set below this is read whole at every start, so that copies of an image stay on one side.
_CONTENT_BYTES = 2_000_000_000


def held_out(files: Files, fraction: float, rule: str | None) -> tuple[np.ndarray, str, list[str]]:
    """Chooses the files that are held out.

    A file is held out where the hash of its content, or of its class and name, is below `fraction`
    of all hashes: so a file that is added, renamed or removed moves no other one. A class of which
    that leaves one side empty gives it the file with the lowest hash (and its copies); a class of
    one image, or of copies of one, is trained on.

    Args:
      files: all files.
      fraction: the share to hold out.
      rule: "content", "name", or "position" (every 1 / fraction-th file of a class, as older runs
        had it); None: "content" where the files take less than 2 GB together, else "name".

    Returns:
      bool [n], the rule in force, and a line on classes that gave a file.

    Raises:
      UserError: a file cannot be read.
    """
    rule = rule or ("content" if _is_below(files, _CONTENT_BYTES) else "name")
    bounds = np.searchsorted(files.labels, np.arange(len(files.folders) + 1))
    classes = [slice(*pair) for pair in itertools.pairwise(bounds)]
    if rule == "position":
        return _by_position(len(files), classes, fraction), rule, []
    hashes = _hashes(files, rule)
    held = hashes < np.uint64(int(fraction * 2**64))
    given = [files.folders[label] for label in _fill_sides(held, hashes, files.labels, classes)]
    lines = [
        f"eval_fraction {fraction:g} left one side of {len(given)} of {len(classes)} classes"
        f" without an image ({named(given)}): each gave it the file with the lowest hash"
    ]
    return held, rule, lines if given else []


def _fill_sides(
    held: np.ndarray, hashes: np.ndarray, labels: np.ndarray, classes: list[slice]
) -> list[int]:
    """Moves images in `held` where a class has them on one side alone; returns these classes.

    A class gives the lowest hash whose copies in other classes may change sides too. Where no image
    may, a class that was held out whole gives the lowest all the same, and others stay trained on.
    """
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]

    def is_fine(label: int) -> bool:
        own, sides = hashes[classes[label]], held[classes[label]]
        one_image = (own == own[:1]).all()
        return not sides.any() if one_image else sides.any() and not sides.all()

    def flip(image: np.uint64) -> np.ndarray:
        first, last = np.searchsorted(ranked, image), np.searchsorted(ranked, image, "right")
        held[order[first:last]] ^= True
        return np.unique(labels[order[first:last]])

    def gives(label: int) -> bool:
        own = np.unique(hashes[classes[label]])
        for image in own:
            if all(map(is_fine, flip(image))):
                return True
            flip(image)
        if held[classes[label]].all():
            flip(own[0])
            return True
        return False

    # Those that would not be trained on come first: what they give may be what others lack.
    untrained = [n for n, own in enumerate(classes) if held[own].size and held[own].all()]
    given = [label for label in untrained if held[classes[label]].all() and gives(label)]
    return given + [label for label in range(len(classes)) if not is_fine(label) and gives(label)]


def _by_position(count: int, classes: list[slice], fraction: float) -> np.ndarray:
    held = np.zeros(count, bool)
    for places in classes:
        # The k-th file is held out where k * fraction passes a whole number.
        passed = np.floor(np.arange(places.stop - places.start + 1) * fraction)
        held[places] = passed[1:] > passed[:-1]
    return held


def _is_below(files: Files, limit: int) -> bool:
    total = 0
    for place in range(len(files)):
        total += files.size(place)
        if total >= limit:
            return False
    return True


def _hashes(files: Files, rule: str) -> np.ndarray:
    def digest(data: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")

    places = range(len(files))
    if rule == "name":
        return _array(digest(os.fsencode(files.relative(place))) for place in places)
    with ThreadPoolExecutor(decode.cores()) as pool:
        return _array(pool.map(lambda place: digest(files.read(place)), places, chunksize=64))


def _array(numbers: Iterable[int]) -> np.ndarray:
    return np.fromiter(numbers, np.uint64)
