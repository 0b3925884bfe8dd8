"""TFRecord files with random access: their record headers are walked once and the places kept in an
index.

The framing, from TensorFlow's documentation of the format: a little-endian 64-bit length, the
masked CRC-32C of those 8 bytes, the record, and its masked CRC-32C. The CRC of the lengths is
checked while walking, that of a record when it is read: it holds the label, at which no image
decoder looks.
"""

import hashlib
import io
import os
import pathlib
import struct

import numpy as np

from resnet_jax.crc import masked_crc
from resnet_jax.data.images.decode import CorruptImageError
from resnet_jax.errors import UserError
from resnet_jax.files import write_atomically

_HEADER, _FOOTER = 12, 4
_CACHE = "resnet_jax/tfrecord_index"


class TfrecordShard:
    """One TFRecord file: `[i]` is record i's bytes; see `records.Records`.

    Raises:
      UserError: the file is no TFRecord file or is cut off; on reading, it has changed since it was
        opened.
      CorruptImageError: on reading, the record's checksum is wrong.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        state = path.stat()
        self._ends = _index(path, state.st_size, state.st_mtime_ns)
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, record: int) -> bytes:
        start = int(self._ends[record - 1]) if record else 0
        length = int(self._ends[record]) - start - _HEADER - _FOOTER
        # pread needs no lock: the file has no place of its own that threads would share.
        data = os.pread(self._file, _HEADER + length + _FOOTER, start)
        if len(data) != _HEADER + length + _FOOTER or struct.unpack("<Q", data[:8])[0] != length:
            raise UserError(
                f"{self._path}, record {record}: the file changed under the run; start it again"
            )
        content = data[_HEADER:-_FOOTER]
        if masked_crc(content) != int.from_bytes(data[-_FOOTER:], "little"):
            raise CorruptImageError(
                f"{self._path}, record {record}: its checksum is not that of its bytes"
            )
        return content


def walk(path: pathlib.Path) -> np.ndarray:
    """Returns where each record's frame ends, int64 [n], by reading the headers only.

    Raises:
      UserError: a length's CRC is wrong, or the file ends inside a frame.
    """
    ends, place, size = [], 0, path.stat().st_size
    with path.open("rb", buffering=64) as file:
        while place < size:
            file.seek(place)
            head = file.read(_HEADER)
            if len(head) == _HEADER:
                length, crc = struct.unpack("<QI", head)
                if masked_crc(head[:8]) != crc:
                    raise UserError(
                        f"{path}, record {len(ends)}: no TFRecord header; copy the file again"
                    )
                place += _HEADER + length + _FOOTER
            if len(head) < _HEADER or place > size:
                raise UserError(
                    f"{path}, record {len(ends)}: the file is cut off there; copy it again"
                )
            ends.append(place)
    return np.array(ends, np.int64)


def _index(path: pathlib.Path, size: int, changed: int) -> np.ndarray:
    """Returns `walk(path)`, kept in the user's cache directory until the file's size or time
    changes.
    """
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    cached = root / _CACHE / f"{name}-{size}-{changed}.npy"
    try:
        ends = np.load(cached, allow_pickle=False)
        if ends.dtype == np.int64 and ends.ndim == 1 and ends[-1:].sum() == size:
            return ends
    # Absent or half written: the walk is the truth.
    except (OSError, ValueError, EOFError):
        pass
    ends = walk(path)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, ends)
        write_atomically(cached, content.getvalue())
    # A cache that cannot be written costs the next start a walk, and nothing else.
    except OSError:
        pass
    return ends
