"""What a split consists of, small enough to be kept beside a run, and how two such differ.

A fingerprint is a dict of what JSON can hold:

  kind: "files", "shards" or "arrays"
  examples: how many
  classes: digest of the classes' names
  digest: of names, labels and order, and of sizes where they are read
  part: [start, stop], where it is a part of a larger split
  folders (files): [name, files, digest] of each class folder
  listing (files, up to 50,000): every name with its size, packed
  shards (shards): [file, examples, bytes, digest if known] of each
  images, labels (arrays): digests; counts: examples of each class
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from resnet_jax.data.sources.tree import Files, printable

# A million `stat`s on a shared disk take minutes.
_MOST_SIZES = 50_000


def of_files(files: Files, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the fingerprint of a folder tree's split.

    Raises:
      UserError: a file is gone.
    """
    with_sizes = len(files) <= _MOST_SIZES
    folders, listing, place = [], [], 0
    for label, folder in enumerate(files.folders):
        names = files.names(label)
        count = names.count(b"\0")
        sizes = [files.size(i) for i in range(place, place + count)] if with_sizes else []
        place += count
        folders.append([folder, count, _digest(names, sizes)])
        listing.append([names.decode("utf-8", "surrogateescape").split("\0")[:-1], sizes])
        if not with_sizes:
            listing.clear()
    found = _fingerprint("files", len(files), classes, folders) | {"folders": folders}
    if with_sizes:
        packed = zlib.compress(json.dumps(listing).encode(), 9)
        found["listing"] = base64.b64encode(packed).decode()
    return found


def of_some_files(files: Files, places: Iterable[int]) -> str:
    """Returns a digest of the names, sizes and labels of files.

    Raises:
      UserError: a file is gone.
    """
    rows = [(files.relative(i), files.size(i), int(files.labels[i])) for i in places]
    return _digest(b"", rows)


def of_shards(shards: list[list], classes: Sequence[str]) -> dict[str, Any]:
    """Returns the fingerprint of a split in shards: [name, examples, bytes, digest if known] of
    each.
    """
    examples = sum(length for _, length, *_ in shards)
    return _fingerprint("shards", examples, classes, shards) | {"shards": shards}


def of_arrays(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the fingerprint of images uint8 [n, H, W, C] and labels int32 [n] in memory."""
    detail = {
        "images": _digest(np.ascontiguousarray(images), images.shape),
        "labels": _digest(np.ascontiguousarray(labels)),
        "counts": np.bincount(labels, minlength=len(classes)).tolist(),
    }
    return _fingerprint("arrays", len(labels), classes, detail) | detail


def of_part(whole: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Returns the fingerprint of the examples start <= place < stop of a split."""
    digest = _digest(whole["digest"].encode(), [start, stop])
    return whole | {"examples": stop - start, "digest": digest, "part": [start, stop]}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a clause for each way in which a split has changed; none where it has not."""
    if old.get("digest") == new["digest"] and old.get("classes") == new["classes"]:
        return []
    if old.get("kind") != new["kind"]:
        return [f"it was read from {old.get('kind')}, now from {new['kind']}"]
    clauses = []
    if old.get("classes") != new["classes"]:
        clauses.append("the classes have other names")
    if old.get("part") != new.get("part"):
        clauses.append(f"the part {old.get('part')} of it became {new.get('part')}")
    compare = {"files": _of_files, "shards": _of_shards, "arrays": _of_arrays}[new["kind"]]
    clauses += compare(old, new)
    return clauses or [f"{old.get('examples')} examples became {new['examples']}"]


def _of_files(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    if "listing" not in old or "listing" not in new:
        return _of_folders(old, new)
    before, after = _listed(old), _listed(new)
    gone, added = (
        {p: x[p] for p in x if p not in y} for x, y in ((before, after), (after, before))
    )
    # A file that left one folder and came to another under its own name and size has moved.
    left = {(path.rpartition("/")[2], size): path for path, (_, size) in gone.items()}
    moved = {}
    for path, (_, size) in added.items():
        was = left.pop((path.rpartition("/")[2], size), None)
        if was is not None:
            moved[was] = path
    came = set(moved.values())
    both = [path for path in after if path in before]
    relabelled = [f"{was} -> {path}" for was, path in moved.items()]
    relabelled += [path for path in both if before[path][0] != after[path][0]]
    clauses = [
        _clause("added", [path for path in added if path not in came]),
        _clause("gone", [path for path in gone if path not in moved]),
        _clause("relabelled", relabelled),
        _clause("of another size", [p for p in both if before[p][1] != after[p][1]]),
    ]
    return [clause for clause in clauses if clause]


def _of_folders(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = ({name: row for name, *row in x.get("folders", [])} for x in (old, new))
    clauses = [
        _clause("added", [name for name in after if name not in before], "class folder"),
        _clause("gone", [name for name in before if name not in after], "class folder"),
    ]
    changed = [
        f"{name}: {before[name][0]:,} files, now {after[name][0]:,}"
        for name in after
        if name in before and before[name] != after[name]
    ]
    clauses.append(_clause("with other files", changed, "class folder"))
    labels = [{name: label for label, name in enumerate(x)} for x in (before, after)]
    other = [name for name in after if labels[0].get(name, labels[1][name]) != labels[1][name]]
    clauses.append(_clause("relabelled", other, "class folder"))
    return [clause for clause in clauses if clause]


def _of_shards(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = ({name: row for name, *row in x.get("shards", [])} for x in (old, new))
    changed = [
        f"{name}: {before[name][0]:,} examples in {before[name][1]:,} bytes, now {after[name][0]:,}"
        f" in {after[name][1]:,}"
        if before[name][:2] != after[name][:2]
        else name
        for name in after
        if name in before and before[name] != after[name]
    ]
    clauses = [
        _clause("added", [name for name in after if name not in before], "shard"),
        _clause("gone", [name for name in before if name not in after], "shard"),
        _clause("with other content", changed, "shard"),
    ]
    return [clause for clause in clauses if clause]


def _of_arrays(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    clauses = []
    if old.get("examples") != new["examples"]:
        clauses.append(f"{old.get('examples')} images became {new['examples']}")
    elif old.get("images") != new["images"]:
        clauses.append("the images have other pixels, or another order")
    if old.get("counts") != new["counts"]:
        clauses.append("the classes have other numbers of images")
    elif old.get("labels") != new["labels"]:
        clauses.append("images are relabelled, or in another order")
    return clauses


def _listed(found: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Returns FOLDER/NAME -> (label, size) of what `of_files` packed."""
    folders = json.loads(zlib.decompress(base64.b64decode(found["listing"])))
    return {
        f"{folder}/{name}": (label, size)
        for label, ((folder, *_), (names, sizes)) in enumerate(
            zip(found["folders"], folders, strict=True)
        )
        for name, size in zip(names, sizes, strict=True)
    }


def _clause(what: str, names: list[str], kind: str = "file") -> str | None:
    if not names:
        return None
    shown = "; ".join(printable(name) for name in names[:3]) + ("; ..." if len(names) > 3 else "")
    ending = "s" if len(names) > 1 else ""
    return f"{len(names):,} {kind}{ending} {what} ({shown})"


def _fingerprint(kind: str, examples: int, classes: Iterable[str], content: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "examples": examples,
        "classes": _digest(b"", list(classes)),
        "digest": _digest(kind.encode(), content),
    }


def _digest(data: Any, also: Any = None) -> str:
    whole = hashlib.blake2b(data, digest_size=12)
    whole.update(json.dumps(also).encode())
    return whole.hexdigest()
