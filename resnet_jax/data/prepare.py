"""Packs a source of encoded images into shards, shrunk if asked: parallel, resumable, verified."""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from resnet_jax.data.images import decode
from resnet_jax.data.sources import shards
from resnet_jax.data.sources.records import ArrayRecordShard
from resnet_jax.data.sources.source import Source
from resnet_jax.data.sources.tree import named
from resnet_jax.errors import UserError
from resnet_jax.files import write_atomically

_PLAN, _UNFINISHED = "plan.json", ".unfinished"


def prepare(
    sources: dict[str, Source],
    output: pathlib.Path,
    *,
    short_side: int | None = None,
    quality: int = 90,
    shard_examples: int = 4096,
    num_threads: int | None = None,
    origin: Mapping[str, str | float | None] | None = None,
    advance: Callable[[int], object] = lambda examples: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, int]:
    """Writes shards of `sources` into a directory.

    A shard appears under its name only when it is complete, with its checksum beside it, and a
    digest of the names, sizes and labels that went into it. Started again, the same command makes
    those that are missing, and those whose images have changed since. The index, without which
    nothing reads the directory, comes last, after every shard's number of records has been held
    against the source's.

    Args:
      sources: split name -> source of encoded images; all with the same classes.
      output: the directory.
      short_side: images whose short side is longer are resized to it (Pillow's Lanczos filter) and
        encoded as JPEG, 4:2:0; None and shorter ones keep their files to the byte.
      quality: of those JPEGs, 1 to 100.
      shard_examples: examples a shard.
      num_threads: None is one a core.
      origin: what else tells this preparation from another, such as the directory of the data; what
        `output` holds is only gone on with if it came from the same.
      advance: called with the number of examples finished since the last call.
      say: told in a line of shards that were made again.

    Returns:
      split -> number of examples.

    Raises:
      UserError: a source is not of encoded images, an image is corrupt, the disk is full, or
        `output` holds the start of another preparation.
    """
    plan = {**(origin or {}), **_plan(sources, short_side, quality, shard_examples)}
    work = _Work(sources, output, plan, advance, say)
    jobs = _jobs(plan)
    try:
        output.mkdir(parents=True, exist_ok=True)
        _check_plan(work)
        _make(work, jobs, num_threads or decode.cores())
        if work.changed:
            say(
                f"{output}: shards made again, or removed, since their images have changed:"
                f" {len(work.changed)} ({named(sorted(work.changed))})"
            )
        return _finish(work, jobs)
    except decode.CorruptImageError as error:
        raise UserError(
            f"{error.fault}; replace it and run the same command again, or remove it and empty"
            f" {output} first"
        ) from error
    except OSError as error:
        raise _cannot_write(error, output) from error


def _cannot_write(error: OSError, output: pathlib.Path) -> UserError:
    remedy = "check the path and its permissions"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space and run the same command again; finished shards are kept"
    return UserError(f"{error.filename or output}: {error.strerror}; {remedy}")


@dataclasses.dataclass(frozen=True)
class _Work:
    sources: dict[str, Source]
    output: pathlib.Path
    plan: dict[str, Any]
    advance: Callable[[int], object]
    say: Callable[[str], None]
    changed: list[str] = dataclasses.field(default_factory=list)
    given_up: threading.Event = dataclasses.field(default_factory=threading.Event)


def _plan(
    sources: dict[str, Source], short_side: int | None, quality: int, shard_examples: int
) -> dict[str, Any]:
    for split, source in sources.items():
        if source.image_shape is not None:
            raise UserError(
                f"config.data.name = {source.name!r}: its {split} images all have one size and need"
                " no shards; train on it as it is"
            )
    classes = {source.classes for source in sources.values()}
    if len(classes) != 1:
        raise UserError(
            f"the splits {', '.join(sources)} have different classes; prepare them apart"
        )
    return {
        "format": shards.FORMAT,
        "source": next(iter(sources.values())).name,
        "short_side": short_side,
        "quality": quality if short_side else None,
        "shard_examples": shard_examples,
        "splits": sorted(source.split for source in sources.values()),
        "examples": {split: len(source) for split, source in sources.items()},
        "classes": list(classes.pop()),
    }


def _check_plan(work: _Work) -> None:
    """Refuses the start of another preparation, and removes what other examples have left."""
    output, plan = work.output, work.plan
    path = output / _PLAN
    if not path.is_file():
        write_atomically(path, json.dumps(plan))
        return
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it is no plan")
    except ValueError as error:
        raise UserError(
            f"{path}: is damaged ({error}); empty the directory and prepare again"
        ) from error
    # What the data consists of may change; each shard knows what it was made of.
    of_data = ("examples", "classes")
    different = [f for f in plan if plan[f] != found.get(f) and f not in of_data]
    if different:
        field = different[0]
        there, wanted = (_shown(value) for value in (found.get(field), plan[field]))
        raise UserError(
            f"{output}: holds shards with {field} {there}, not {wanted}; take another directory, or"
            " empty this one"
        )
    if any(plan[field] != found.get(field) for field in of_data):
        (output / shards.INDEX).unlink(missing_ok=True)
        wanted = {_file(plan, *job) for job in _jobs(plan)}
        for old in output.glob("*-of-*.array_record"):
            if old.name not in wanted:
                _note(old).unlink(missing_ok=True)
                old.unlink()
                work.changed.append(old.name)
        write_atomically(path, json.dumps(plan))


def _jobs(plan: dict[str, Any]) -> list[tuple[str, int]]:
    return [
        (split, number)
        for split, examples in plan["examples"].items()
        for number in range(-(-examples // plan["shard_examples"]))
    ]


def _shown(value: Any) -> str:
    # A list of classes may be long; of two directories the ends tell.
    return value if isinstance(value, str) else str(value)[:60]


def _file(plan: dict[str, Any], split: str, number: int) -> str:
    count = -(-plan["examples"][split] // plan["shard_examples"])
    return f"{split}-{number:05d}-of-{count:05d}.array_record"


def _make(work: _Work, jobs: list[tuple[str, int]], num_threads: int) -> None:
    """Writes the shards that are missing; the first fault gives the others up."""
    for left in work.output.glob(f"*{_UNFINISHED}"):  # of a process that was killed
        left.unlink()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for done in as_completed([pool.submit(_shard, work, *job) for job in jobs]):
                done.result()
        except BaseException:
            work.given_up.set()
            raise


def _shard(work: _Work, split: str, number: int) -> None:
    path = work.output / _file(work.plan, split, number)
    start = number * work.plan["shard_examples"]
    stop = min(start + work.plan["shard_examples"], len(work.sources[split]))
    if work.given_up.is_set():
        return
    ingredients = work.sources[split].ingredients(start, stop)
    if path.is_file() and _note(path).is_file():
        note, classes = _read_note(path), len(work.sources[split].classes)
        if note.get("ingredients") == ingredients and len(note.get("counts", ())) == classes:
            work.advance(stop - start)
            return
        work.changed.append(path.name)
    _note(path).unlink(missing_ok=True)
    (work.output / shards.INDEX).unlink(missing_ok=True)
    unfinished = path.with_suffix(_UNFINISHED)
    try:
        counts = _write(work, split, start, stop, unfinished)
        if work.given_up.is_set():
            return
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    note = {
        "file": path.name,
        "examples": stop - start,
        "bytes": path.stat().st_size,
        "sha256": digest,
        "ingredients": ingredients,
        "counts": counts,  # of every class: when one comes or goes, the shard is made again
    }
    write_atomically(_note(path), json.dumps(note))


def _read_note(path: pathlib.Path) -> dict[str, Any]:
    """Returns the note beside a shard, {} where it is damaged."""
    try:
        note = json.loads(_note(path).read_text())
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _write(work: _Work, split: str, start: int, stop: int, path: pathlib.Path) -> list[int]:
    """Writes the records of one shard and returns how many of each class there are."""
    from array_record.python.array_record_module import ArrayRecordWriter

    source, short_side = work.sources[split], work.plan["short_side"]
    counts = [0] * len(source.classes)
    # One record a group, so that reading one unpacks one; JPEG shrinks no further.
    writer = _written(path, ArrayRecordWriter, str(path), "group_size:1,uncompressed")
    for place in range(start, stop):
        if work.given_up.is_set():
            break
        example = source[place]
        image = example.image
        assert isinstance(image, bytes)  # Sources of files give them.
        counts[example.label] += 1
        if short_side:
            image = shrink(image, short_side, work.plan["quality"], source.where(place))
        _written(path, writer.write, shards.pack(example.label, image))
        work.advance(1)
    _written(path, writer.close)
    if work.given_up.is_set():
        return counts
    if _written(path, lambda: len(ArrayRecordShard(path))) != stop - start:
        raise OSError(errno.ENOSPC, "the shard came out short, as on a full disk", str(path))
    return counts


def _written(path: pathlib.Path, write: Callable, *arguments: Any) -> Any:
    try:
        return write(*arguments)
    # The writer reports a full disk in a form of its own.
    except (RuntimeError, ValueError) as error:
        raise OSError(errno.ENOSPC, " ".join(str(error).split())[:200], str(path)) from error


def shrink(encoded: bytes, short_side: int, quality: int, where: str) -> bytes:
    """Returns the image with its short side at most `short_side`, as a JPEG; a smaller one comes
    back as it is.

    Raises:
      CorruptImageError: the bytes are no image.
    """
    image = decode.rgb(encoded, where)
    scale = short_side / min(image.size)
    if scale >= 1:
        return encoded
    width, height = (max(short_side, round(side * scale)) for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420")


def _finish(work: _Work, jobs: list[tuple[str, int]]) -> dict[str, int]:
    sources, output, plan = work.sources, work.output, work.plan
    notes = {split: [] for split in sources}
    for split, number in jobs:
        notes[split].append(_read_note(output / _file(plan, split, number)))
    for split, source in sources.items():
        written = sum(note["examples"] for note in notes[split])
        if written != len(source):
            raise UserError(
                f"{output}: {written} of {len(source)} {split} examples; empty it and prepare again"
            )
    described = {
        field: plan[field] for field in ("format", "source", "short_side", "quality", "classes")
    }
    described["splits"] = {
        split: {
            "examples": len(source),
            "lacking_classes": source.lacking_classes(),
            "counts": sum(
                (np.array(note.pop("counts")) for note in notes[split]),
                np.zeros(len(source.classes), int),  # a split may be empty
            ).tolist(),
            "shards": notes[split],
        }
        for split, source in sources.items()
    }
    write_atomically(output / shards.INDEX, json.dumps(described, indent=1))
    return plan["examples"]


def _note(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix(".json")
