"""Broken files by the thousand: only the documented errors may come out.

    PYTHONPATH=tests python tests/data/fuzz.py --cases=20000 [--seed=1]

runs the long form, with 2 GiB of address space beyond what its libraries take; the test-suite runs a short one.
"""

import argparse
import io
import json
import os
import pathlib
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable

import fabricate
import numpy as np
from data_settings import settings
from PIL import Image

from resnet_jax import UserError
from resnet_jax.data import fingerprint, open_source
from resnet_jax.data.images import decode
from resnet_jax.data.prepare import prepare
from resnet_jax.data.sources import classes, idx, shards, tfrecord
from resnet_jax.data.sources.records import ArrayRecordShard, Records
from resnet_jax.data.sources.tfds import TfdsSource

HEADROOM = 2 << 30  # bytes
SLOW = 20.0


def mutated(whole: bytes, draws: np.random.Generator, other: bytes) -> bytes:
    """Returns `whole` with flipped bits, cut off, spliced with `other`, or with a length field
    overwritten.
    """
    data = bytearray(whole)
    for _ in range(draws.integers(1, 4)):
        place = int(draws.integers(len(data))) if data else 0
        match draws.integers(5):
            case 0:
                for spot in draws.integers(0, max(len(data), 1), draws.integers(1, 9)):
                    if data:
                        data[spot % len(data)] ^= 1 << int(draws.integers(8))
            case 1:
                data = data[:place]
            case 2:
                data = data[:place] + other[int(draws.integers(len(other))) :]
            case 3:
                size = int(draws.choice([2, 4, 8]))
                data[place : place + size] = int(draws.integers(0, 2**63)).to_bytes(8, "big")[
                    8 - size :
                ]
            case 4:
                data[place : place + 8] = struct.pack("<Q", 1 << int(draws.integers(64)))
    return bytes(data)


def jpegs() -> list[bytes]:
    draws, files = np.random.default_rng(0), []
    smooth = np.cumsum(np.cumsum(draws.normal(size=(90, 120, 3)), 0), 1)
    image = Image.fromarray(np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth)))
    for kind, options in (
        ("JPEG", {"quality": 90}),
        ("JPEG", {"progressive": True}),
        (
            "JPEG",
            {
                "subsampling": 0,
                "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
            },
        ),
        ("PNG", {}),
        ("WEBP", {}),
    ):
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


def check_image(data: bytes, draws: np.random.Generator) -> None:
    top, left = draws.random(2)
    pixels = decode.part(
        data,
        32,
        lambda h, w: (int(top * h / 2), int(left * w / 2), max(h // 2, 1), max(w // 2, 1)),
        "file",
    )
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8


def check_idx(path: pathlib.Path) -> None:
    assert idx.read(path, (1, 3, 4)).dtype == np.uint8


def check_records(path: pathlib.Path, shard_type: type) -> None:
    try:
        count = len(shard_type(path))
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: {error}") from error
    records = Records([path], [count], shard_type)
    for place in range(min(count, 50)):
        assert len(records[place]) < 1 << 24


def check_classes(path: pathlib.Path) -> None:
    found = classes.read(path)
    assert found
    assert len(set(found)) == len(found)
    "".join(found).encode()


def check_index(directory: pathlib.Path, data: bytes) -> None:
    (directory / shards.INDEX).write_bytes(data)
    fields = settings(name="shards", dir=str(directory))
    for train in (True, False):
        source = open_source(fields, train)
        fingerprint(source)
        for place in range(min(len(source), 5)):
            assert 0 <= source[place].label < len(source.classes)


def check_example(source: TfdsSource, data: bytes) -> None:
    """A record whose checksum is right and whose content is not: as a broken writer leaves it."""
    source._records = _OneRecord(data)
    assert 0 <= source[0].label < len(source.classes)


class _OneRecord(list):
    def __init__(self, data: bytes):
        super().__init__([data])

    def where(self, place: int) -> str:
        return "shard, record 0"


def check_names(root: pathlib.Path, data: bytes) -> None:
    """File and folder names are any bytes but zero and slash."""
    names = [
        name[:200] for name in data.replace(b"/", b"").split(b"\0") if name not in (b".", b"..")
    ]
    tree = root / "names"
    shutil.rmtree(tree, ignore_errors=True)
    for number, name in enumerate(filter(None, names)):
        folder = os.fsencode(tree) + b"/train/" + (name if number % 3 == 0 else b"a")
        os.makedirs(folder, exist_ok=True)
        path = folder + b"/" + name
        if not os.path.exists(path):
            os.symlink(b"x", path) if number % 7 == 5 else open(path, "wb").close()
    fields = settings(name="folder", dir=str(tree), train_split="train")
    source = open_source(fields, True)
    json.dumps(fingerprint(source))
    for place in range(len(source)):
        source.where(place).encode()
        assert source[place].image == b""
    "".join([*source.notes, *source.classes]).encode()


def original_index(root: pathlib.Path) -> bytes:
    tree = root / "tree"
    fabricate.folder_tree(
        tree, {s: {"a": [jpegs()[0]] * 3, "b": [jpegs()[1]]} for s in ("train", "val")}
    )
    fields = settings(name="folder", dir=str(tree))
    sources = {s: open_source(fields, s == "train") for s in ("train", "val")}
    prepare(sources, root / "shards", shard_examples=2)
    return (root / "shards" / shards.INDEX).read_bytes()


def original_examples(root: pathlib.Path) -> tuple[TfdsSource, list[bytes]]:
    examples = [(jpegs()[0][:200], label) for label in range(3)]
    fabricate.tfds_directory(
        root / "tfds",
        {"train": examples},
        name="x",
        classes=["a", "b", "c"],
        file_format="tfrecord",
    )
    source = open_source(settings(name="x", dir=str(root / "tfds")), True)
    return source, [source._records[place] for place in range(3)]


def readers(root: pathlib.Path) -> dict[str, tuple[list[bytes], Callable]]:
    """Returns kind -> (sound files, a check of (path, its bytes, draws))."""
    from array_record.python.array_record_module import ArrayRecordWriter

    values = np.arange(3 * 5 * 5, dtype=np.uint8).reshape(3, 5, 5)
    header = struct.pack(">HBB3I", 0, 8, 3, *values.shape) + values.tobytes()
    labels = struct.pack(">HBBI", 0, 8, 1, 9) + bytes(range(9))
    frames = b"".join(map(fabricate.tfrecord_frame, (b"one", b"", b"three" * 40)))
    writer = ArrayRecordWriter(str(root / "whole"), "group_size:1")
    for place in range(20):
        writer.write(np.random.default_rng(place).bytes(6000))
    writer.close()
    index = original_index(root)
    source, examples = original_examples(root)
    listed = [b"cat\ndog\nbird\n", "\ufeffGrüße\r\nx y\r\n\r\n".encode()]
    names = ["a\0b.jpg\0ü.png\0._c.jpg\0d.TIFF\0notes.txt\0train".encode(), b"x.jpg\0\xe9.jpg\0y"]
    return {
        "image": (jpegs(), lambda path, data, draws: check_image(data, draws)),
        "idx": ([header, labels], lambda path, data, draws: check_idx(path)),
        "tfrecord": ([frames], lambda path, data, draws: check_records(path, _Walked)),
        "array_record": (
            [(root / "whole").read_bytes()],
            lambda path, data, draws: check_records(path, ArrayRecordShard),
        ),
        "classes": (listed, lambda path, data, draws: check_classes(path)),
        "index": ([index], lambda path, data, draws: check_index(root / "shards", data)),
        "example": (examples, lambda path, data, draws: check_example(source, data)),
        "names": (names, lambda path, data, draws: check_names(root, data)),
    }


def fuzz(cases: int, seed: int) -> dict[str, int]:
    """Feeds `cases` broken files to the readers and returns how many each refused.

    Raises:
      Whatever a reader raises that is not documented; AssertionError if one takes too long.
    """
    draws, refused = np.random.default_rng(seed), {}
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        kinds = readers(root)
        # Now that all is imported: what else is installed, TFDS imports too.
        held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + HEADROOM, resource.RLIM_INFINITY))
        for case in range(cases):
            kind = list(kinds)[case % len(kinds)]
            files, check = kinds[kind]
            data = mutated(
                files[draws.integers(len(files))], draws, files[draws.integers(len(files))]
            )
            path = root / f"case{case % 7}{'.gz' if draws.integers(8) == 0 else ''}"
            path.write_bytes(data)
            began = time.perf_counter()
            try:
                check(path, data, draws)
            except UserError:
                refused[kind] = refused.get(kind, 0) + 1
            except BaseException as error:
                error.add_note(f"seed {seed}, case {case}, {kind}: {data[:300]!r}")
                raise
            assert time.perf_counter() - began < SLOW, f"seed {seed}, case {case}: too slow"
    return refused


class _Walked(tfrecord.TfrecordShard):
    """A shard whose index is never kept: every case has the same few names."""

    def __init__(self, path: pathlib.Path):
        tfrecord.walk(path)
        super().__init__(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"refused, and nothing else went wrong: {fuzz(arguments.cases, arguments.seed)}")


if __name__ == "__main__":
    sys.exit(main())
