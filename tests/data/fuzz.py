"""Broken files by the thousand: only the documented errors may come out.

    python tests/data/fuzz.py --cases=20000 [--seed=1]

runs the long form, under an address-space limit of 4 GiB; the test-suite runs a short one.
"""

import argparse
import io
import pathlib
import resource
import struct
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from resnet_jax import UserError
from resnet_jax.data.images import decode
from resnet_jax.data.sources import idx, tfrecord
from resnet_jax.data.sources.records import ArrayRecordShard, Records

LIMIT = 4 << 30
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


def originals(root: pathlib.Path) -> dict[str, list[bytes]]:
    from array_record.python.array_record_module import ArrayRecordWriter

    values = np.arange(3 * 5 * 5, dtype=np.uint8).reshape(3, 5, 5)
    header = struct.pack(">HBB3I", 0, 8, 3, *values.shape) + values.tobytes()
    labels = struct.pack(">HBBI", 0, 8, 1, 9) + bytes(range(9))
    frames = b""
    for record in (b"one", b"", b"three" * 40):
        size = struct.pack("<Q", len(record))
        frames += size + struct.pack("<I", tfrecord.masked_crc(size)) + record
        frames += struct.pack("<I", tfrecord.masked_crc(record))
    writer = ArrayRecordWriter(str(root / "whole"), "group_size:1")
    for place in range(20):
        writer.write(np.random.default_rng(place).bytes(6000))
    writer.close()
    return {
        "image": jpegs(),
        "idx": [header, labels],
        "tfrecord": [frames],
        "array_record": [(root / "whole").read_bytes()],
    }


def fuzz(cases: int, seed: int) -> dict[str, int]:
    """Feeds `cases` broken files to the readers and returns how many each refused.

    Raises:
      Whatever a reader raises that is not documented; AssertionError if one takes too long.
    """
    draws, refused = np.random.default_rng(seed), {}
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        kinds = originals(root)
        for case in range(cases):
            kind = list(kinds)[case % len(kinds)]
            files = kinds[kind]
            data = mutated(
                files[draws.integers(len(files))], draws, files[draws.integers(len(files))]
            )
            path = root / f"case{case % 7}{'.gz' if draws.integers(8) == 0 else ''}"
            path.write_bytes(data)
            began = time.perf_counter()
            try:
                if kind == "image":
                    check_image(data, draws)
                elif kind == "idx":
                    check_idx(path)
                elif kind == "tfrecord":
                    check_records(path, _Walked)
                else:
                    check_records(path, ArrayRecordShard)
            except UserError:
                refused[kind] = refused.get(kind, 0) + 1
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
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    print(f"refused, and nothing else went wrong: {fuzz(arguments.cases, arguments.seed)}")


if __name__ == "__main__":
    sys.exit(main())
