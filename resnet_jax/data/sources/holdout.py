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
    given: dict[str, int] = {}
    # A copy in another class changes sides too, which may leave that class with one: look again.
    while found := _to_give(hashes, held, classes, [*given.values()]):
        held ^= np.isin(hashes, [*found.values()])
        given |= {files.folders[label]: lowest for label, lowest in found.items()}
    lines = [
        f"eval_fraction {fraction:g} left one side of {len(given)} of {len(classes)} classes"
        f" without an image ({named(given)}): each gave it the file with the lowest hash"
    ]
    return held, rule, lines if given else []


def _to_give(
    hashes: np.ndarray, held: np.ndarray, classes: list[slice], given: list[int]
) -> dict[int, int]:
    """Returns the classes that have images on one side alone -> the lowest hash of those that they
    can give to the other, none of which was given before.
    """
    found = {}
    for label, places in enumerate(classes):
        own = hashes[places]
        if not len(own) or held[places].any() != held[places].all():
            continue
        free = own[~np.isin(own, given)]
        # Of one image, or of copies of one, a class is trained on.
        if len(free) and (held[places].all() or (own != own[0]).any()):
            found[label] = int(free.min())
    return found


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
