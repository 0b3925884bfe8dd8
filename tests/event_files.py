"""TensorBoard's event files, read by another implementation than the one that writes them."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.crc32c import _crc32c as crc32c
from tensorboardX.proto.event_pb2 import Event


def read(path: Path) -> Iterator[Event]:
    """Yields the events of a TFRecord file, their checksums compared: length, its sum, the bytes,
    their sum.
    """
    content = path.read_bytes()
    while content:
        length, head = struct.unpack("<QI", content[:12])
        data, (body,) = (
            content[12 : 12 + length],
            struct.unpack("<I", content[12 + length : 16 + length]),
        )
        assert (crc32c(content[:8]), crc32c(data)) == (_unmasked(head), _unmasked(body))
        yield Event.FromString(data)
        content = content[16 + length :]


def _unmasked(crc: int) -> int:
    rotated = (crc - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF
