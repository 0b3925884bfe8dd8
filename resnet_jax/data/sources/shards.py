"""Prepared shards: what `data.prepare` writes and training reads.

A directory has one `index.json` and, per split, array_record files. A record is the label, a
little-endian 32-bit number, followed by the encoded image.
"""

import functools
import json
import pathlib
import struct
from collections.abc import Callable
from typing import Any

from resnet_jax.data.sources import fingerprint
from resnet_jax.data.sources.records import ArrayRecordShard, Records
from resnet_jax.data.sources.source import DataSet, Example, Source
from resnet_jax.errors import UserError

INDEX = "index.json"
FORMAT = 1
_LABEL = struct.Struct("<i")


def pack(label: int, image: bytes) -> bytes:
    """Returns the record of one example."""
    return _LABEL.pack(label) + image


class ShardSource(Source):
    """One split of a directory of prepared shards.

    Args:
      directory: where the shards are.
      split: the split's name.
      index: the parsed index.
    """

    def __init__(self, directory: pathlib.Path, split: str, index: dict[str, Any]):
        self.name, self.split, self.classes = "shards", split, tuple(index["classes"])
        self._lacking = index["splits"][split].get("lacking_classes", 0)
        self._counts = index["splits"][split].get("counts")
        shards = self._shards = index["splits"][split]["shards"]
        paths = [directory / shard["file"] for shard in shards]
        for path, shard in zip(paths, shards, strict=True):
            if path.is_file() and path.stat().st_size != shard["bytes"]:
                raise UserError(
                    f"{path}: {path.stat().st_size} bytes, but {INDEX} says {shard['bytes']}; copy"
                    " or prepare it again"
                )
        self._records = Records(paths, [shard["examples"] for shard in shards], ArrayRecordShard)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: int) -> Example:
        record = self._records[place]
        label = _LABEL.unpack_from(record)[0] if len(record) > _LABEL.size else -1
        if not 0 <= label < len(self.classes):
            raise UserError(
                f"{self.where(place)}: is no prepared example; copy or prepare the shard again"
            )
        return Example(record[_LABEL.size :], label)

    def fingerprint(self) -> dict[str, Any]:
        shards = [
            [shard["file"], shard["examples"], shard["bytes"], shard.get("sha256")]
            for shard in self._shards
        ]
        return fingerprint.of_shards(shards, self.classes)

    def where(self, place: int) -> str:
        return self._records.where(place)

    def missing_classes(self) -> tuple[str, ...]:
        # Shards of an older version have no counts.
        pairs = zip(self.classes, self._counts or (), strict=False)
        return tuple(name for name, count in pairs if not count)

    def lacking_classes(self) -> int:
        return self._lacking


def open_data(config: Any, say: Callable[[str], None]) -> DataSet:
    """Offers the splits of the prepared shards in `config.data.dir`.

    Raises:
      UserError: there are no shards; in opening a split, a shard is not what the index says.
    """
    directory = pathlib.Path(config.dir).expanduser()
    index = read_index(directory)
    return DataSet(
        str(directory),
        {name: functools.partial(ShardSource, directory, name, index) for name in index["splits"]},
    )


def read_index(directory: pathlib.Path) -> dict[str, Any]:
    """Reads and checks `index.json`.

    Raises:
      UserError: it is missing, which is what an unfinished preparation leaves, or is no such index.
    """
    path = directory / INDEX
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; make shards with python launch.py --mode=prepare, or let it"
            " finish"
        )
    try:
        index = json.loads(path.read_text())
        for split in index["splits"].values():
            if len(split.get("counts", index["classes"])) != len(index["classes"]):
                raise ValueError("it has counts of other classes")
            for shard in split["shards"]:
                if pathlib.PurePath(shard["file"]).name != shard["file"]:
                    raise ValueError(f"{shard['file']!r} is no plain file name")
                if not (isinstance(shard["examples"], int) and isinstance(shard["bytes"], int)):
                    raise ValueError("examples and bytes are whole numbers")
        known = index["format"] == FORMAT and isinstance(index["classes"], list)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no index of shards ({error}); prepare them again") from error
    if not known:
        raise UserError(
            f"{path}: format {index['format']!r}, but this version reads {FORMAT}; prepare again"
        )
    return index
