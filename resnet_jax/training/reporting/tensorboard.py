"""TensorBoard's event files, written without its libraries.

An event file is a TFRecord file of protocol buffers. Of TensorFlow's `event.proto` and
`summary.proto` this needs `Event` (wall_time 1, step 2, file_version 3, summary 5, session_log 7),
`Summary` (value 1), `Summary.Value` (tag 1, simple_value 2) and `SessionLog` (status 1, of which
START is 1). The packages that write them import PyTorch where it is installed, which takes seconds,
and wait for the disk at every flush.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from resnet_jax.crc import masked_crc

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5


class Board:
    """A TensorBoard event file, written at once and in this thread, so that a full disk is noticed
    here.

    Args:
      directory: where it goes.
      purge_step: TensorBoard forgets what earlier files have from this step on.

    Raises:
      OSError: the file cannot be opened or written.
    """

    def __init__(self, directory: str, purge_step: int):
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        # Open as long as the run lasts.
        self._file = open(os.path.join(directory, name), "ab")  # noqa: SIM115
        self._append(0, _field(3, _BYTES, b"brain.Event:2"))
        self._append(purge_step, _field(7, _BYTES, _field(1, _VARINT, 1)))
        self._file.flush()

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes each number of a line of the log as "<split>/<name>"."""
        values = b""
        for name, value in record.items():
            if name not in ("step", "split", "epoch"):
                tag = f"{record['split']}/{name}".encode()
                with np.errstate(over="ignore"):  # float64 has larger numbers than the file
                    value = float(np.float32(value))
                values += _field(1, _BYTES, _field(1, _BYTES, tag) + _field(2, _FLOAT, value))
        self._append(record["step"], _field(5, _BYTES, values))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _append(self, step: int, what: bytes) -> None:
        event = _field(1, _DOUBLE, time.time()) + _field(2, _VARINT, step) + what
        length = struct.pack("<Q", len(event))
        self._file.write(
            length
            + struct.pack("<I", masked_crc(length))
            + event
            + struct.pack("<I", masked_crc(event))
        )


def _field(number: int, kind: int, value: Any) -> bytes:
    """Returns a field of a protocol buffer: its number and wire type, then its value."""
    key = _varint(number << 3 | kind)
    if kind == _VARINT:
        return key + _varint(value)
    if kind == _BYTES:
        return key + _varint(len(value)) + value
    return key + struct.pack("<d" if kind == _DOUBLE else "<f", value)


def _varint(value: int) -> bytes:
    """Returns a whole number in groups of seven bits, the lowest first, all but the last marked."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
