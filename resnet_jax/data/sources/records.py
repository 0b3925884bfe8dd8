"""Random access to the records of sharded files."""

import bisect
import functools
import itertools
import pathlib
import resource
import threading
from collections.abc import Callable, Sequence
from typing import Any

from resnet_jax.data.sources import fingerprint
from resnet_jax.errors import UserError


class Records:
    """The records of several shards, one after the other, each shard opened when it is first read.

    Args:
      paths: the shards, in order.
      lengths: how many records each shard has.
      open_shard: path -> an object whose `[i]` is record i's bytes, `len` their number;
        thread-safe.

    Raises:
      UserError: a shard is missing; on reading, a shard holds another number of records than
        stated, or a record cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        lengths: Sequence[int],
        open_shard: Callable[[pathlib.Path], Any],
    ):
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise UserError(
                f"{missing[0]}: missing ({len(missing)} of {len(paths)} shards are); copy or"
                " prepare the data again"
            )
        _allow_open_files(len(paths))
        self._paths, self._lengths, self._open = list(paths), list(lengths), open_shard
        self._ends = list(itertools.accumulate(lengths))
        self._shards: list[Any] = [None] * len(paths)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, place: int) -> bytes:
        number, record = self._find(place)
        shard = self._shards[number]
        try:
            return (shard or self._opened(number))[record]
        except (OSError, ValueError, RuntimeError, IndexError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.where(place)}: cannot be read ({reason}); copy or prepare this shard again"
            ) from error

    def fingerprint(self, classes: Sequence[str]) -> dict[str, Any]:
        """Returns the fingerprint of these shards, for a source with `classes`."""
        return fingerprint.of_shards(self._shape, classes)

    @functools.cached_property
    def _shape(self) -> list[list]:
        return [
            [path.name, length, path.stat().st_size]
            for path, length in zip(self._paths, self._lengths, strict=True)
        ]

    def where(self, place: int) -> str:
        """Returns "FILE, record N" for a place counted over all shards."""
        number, record = self._find(place)
        return f"{self._paths[number]}, record {record}"

    def _find(self, place: int) -> tuple[int, int]:
        if not 0 <= place < len(self):
            raise IndexError(place)
        number = bisect.bisect_right(self._ends, place)
        return number, place - (self._ends[number] - self._lengths[number])

    def _opened(self, number: int) -> Any:
        with self._lock:
            if self._shards[number] is None:
                shard = self._open(self._paths[number])
                if len(shard) != self._lengths[number]:
                    raise UserError(
                        f"{self._paths[number]}: holds {len(shard)} records, not the "
                        f"{self._lengths[number]} that "
                        "its data set states; copy or prepare this shard again"
                    )
                self._shards[number] = shard
            return self._shards[number]


def _allow_open_files(count: int) -> None:
    """Raises the soft limit of open files where it is lower than shards need; the hard limit
    stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Twice, because training and evaluation read side by side, and some for everything else.
    needed = 2 * count + 256
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


class ArrayRecordShard:
    """One array_record file; see `Records`."""

    def __init__(self, path: pathlib.Path):
        from array_record.python.array_record_module import ArrayRecordReader

        # Without a read-ahead buffer a random read costs one record, not a run of them.
        self._reader = ArrayRecordReader(
            str(path), "readahead_buffer_size:0", file_reader_buffer_size=32768
        )

    def __len__(self) -> int:
        return self._reader.num_records()

    def __getitem__(self, record: int) -> bytes:
        return self._reader.read([record])[0]
