"""Data sets in TFDS's directories, by name, without TensorFlow."""

import functools
import math
import pathlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from resnet_jax.data.images import decode
from resnet_jax.data.sources import imagenet
from resnet_jax.data.sources.records import ArrayRecordShard, Records
from resnet_jax.data.sources.source import (
    IN_MEMORY_BYTES,
    ArraySource,
    DataSet,
    Example,
    Moments,
    Source,
    measure,
)
from resnet_jax.data.sources.tfrecord import TfrecordShard
from resnet_jax.errors import UserError

_OPENERS = {"array_record": ArrayRecordShard, "tfrecord": TfrecordShard}


class TfdsSource(Source):
    """One split of a prepared TFDS directory; images stay encoded until they are asked for.

    Args:
      config: `config.data`.
      builder: a TFDS builder made from the directory.
      split: the split's name.
    """

    def __init__(self, config: Any, builder: Any, split: str):
        self.name, self.split = config.name, split
        features = builder.info.features
        self._image, self._label = _keys(config, builder)
        self.classes = imagenet.readable(features[self._label].names)
        height, width, channels = features[self._image].shape
        if height and width and channels:
            # Of four, the last is alpha, which is dropped.
            self.image_shape = (height, width, min(channels, 3))
        self._records = _records(builder, split)
        self._parse = _parser(features, self._image, self._label)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: int) -> Example:
        record = self._records[place]
        try:
            fields = self._parse(record)
            image, label = fields[self._image], int(fields[self._label])
        # The parser is TFDS's and protobuf's: broken bytes make it raise almost anything.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise decode.CorruptImageError(
                f"{self.where(place)}: is no valid example ({reason})"
            ) from error
        if not 0 <= label < len(self.classes):
            raise UserError(
                f"{self.where(place)}: label {label} is outside 0..{len(self.classes) - 1};"
                " prepare it again"
            )
        return Example(image, label)

    def fingerprint(self) -> dict[str, Any]:
        return self._records.fingerprint(self.classes)

    def where(self, place: int) -> str:
        return self._records.where(place)


def open_data(config: Any, say: Callable[[str], None]) -> DataSet:
    """Offers the splits of the TFDS data set `config.data.name`, in memory where all images have
    one size and fit into 1 GiB, else as encoded files.

    `config.data.dir` may be the directory that TFDS calls data_dir, or the data set's own or its
    version's; None is TFDS's default.

    Raises:
      UserError: the data set is not there or is no image classification.
    """
    builder = _builder(config.name, config.dir)
    return DataSet(
        f"{builder.info.full_name} ({builder.data_path})",
        {name: functools.partial(_open, config, builder, name) for name in builder.info.splits},
    )


def _open(config: Any, builder: Any, split: str) -> Source:
    source = TfdsSource(config, builder, split)
    if source.image_shape is None or len(source) * math.prod(source.image_shape) > IN_MEMORY_BYTES:
        return source
    return _in_memory(source, builder, config)


def _in_memory(source: TfdsSource, builder: Any, config: Any) -> ArraySource:
    shape = source.image_shape
    assert shape is not None
    images = np.zeros((len(source), *shape), np.uint8)
    labels, faults = np.zeros(len(source), np.int32), {}

    def fill(place: int):
        try:
            example = source[place]
            labels[place] = example.label
            images[place] = decode.whole(
                example.image, shape, source.where(place), config.max_pixels
            )
        except decode.CorruptImageError as error:
            if config.on_error == "stop":
                raise
            faults[place] = error.fault

    with ThreadPoolExecutor(config.num_threads or decode.cores()) as pool:
        for _ in pool.map(fill, range(len(source)), chunksize=64):
            pass

    @functools.cache
    def moments() -> Moments:
        if source.split != "train" and "train" in builder.info.splits:
            return _in_memory(TfdsSource(config, builder, "train"), builder, config).moments()
        return measure(np.delete(images, list(faults), axis=0) if faults else images)

    return ArraySource(
        source.name,
        source.split,
        source.classes,
        images,
        labels,
        moments,
        source.fingerprint,
        faults,
    )


def _builder(name: str, directory: str | None) -> Any:
    import tensorflow_datasets as tfds

    # TFDS loads this module when it is asked for, which a type checker does not see.
    default = tfds.core.constants.DATA_DIR  # pyright: ignore[reportAttributeAccessIssue]
    root = pathlib.Path(directory or default).expanduser()
    base = name.split(":")[0]
    places = [root, *root.glob("*"), *(root / base).glob("*"), *(root / base).glob("*/*")]
    prepared = [place for place in places if _is_prepared(place, base)]
    if not prepared and "/" not in base:
        prepared = _variants(name, root, places)
    if not prepared:
        raise UserError(
            f"config.data.dir = {directory!r}: no prepared TFDS data set {base!r} in {root}; make"
            f" one with: python -c \"import tensorflow_datasets as tfds; tfds.builder('{base}',"
            f" data_dir='{root}', file_format='array_record').download_and_prepare()\" (most of"
            " TFDS's own preparation needs TensorFlow; without it take data.name='idx', 'cifar' or"
            " 'folder', or --mode=prepare --source=imagenet_tars)"
        )
    version = name.partition(":")[2]
    fitting = [place for place in prepared if not version or place.name == version]
    if not fitting:
        found = ", ".join(place.name for place in prepared)
        raise UserError(
            f"config.data.name = {name!r}: {root} has version {found} of it; drop the ':{version}'"
        )
    chosen = max(fitting, key=_version)
    try:
        return tfds.builder_from_directory(chosen)
    # TFDS raises its own kinds, and JSON's and protobuf's, for metadata that does not parse.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{chosen}: TFDS cannot read its metadata ({reason}); prepare it again"
        ) from error


def _is_prepared(place: pathlib.Path, base: str) -> bool:
    if not (place / "dataset_info.json").is_file() or not re.fullmatch(
        r"\d+\.\d+\.\d+", place.name
    ):
        return False
    return tuple(base.split("/")) in (place.parts[-2:-1], place.parts[-3:-1])


def _variants(name: str, root: pathlib.Path, places: list[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the versions of a set that lies in name/variant/version, where it has one variant."""
    base = name.split(":")[0]
    found = [place for place in places if _is_prepared(place, f"{base}/{place.parent.name}")]
    names = sorted({place.parent.name for place in found})
    if len(names) > 1:
        raise UserError(
            f"config.data.name = {name!r}: {root} has several of it; name one, such as"
            f" {base}/{names[0]} ({', '.join(names)})"
        )
    return found


def _version(place: pathlib.Path) -> tuple[int, ...]:
    return tuple(int(number) for number in place.name.split("."))


def _keys(config: Any, builder: Any) -> tuple[str, str]:
    """Returns the names of the image feature and the label feature."""
    import tensorflow_datasets as tfds

    features, supervised = builder.info.features, builder.info.supervised_keys
    meant = supervised if supervised and len(supervised) == 2 else ("image", "label")
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    image, label = (
        _key(config, features, field, kind, name)
        for field, kind, name in zip(("image_key", "label_key"), kinds, meant, strict=True)
    )
    dtype = np.dtype(features[image].np_dtype)
    if dtype != np.uint8:
        raise UserError(
            f"config.data.name = {config.name!r}: its images are {dtype}; uint8 is needed"
        )
    if not features[label].num_classes:
        raise UserError(
            f"config.data.name = {config.name!r}: its labels state no number of classes; take"
            " another data set"
        )
    return image, label


def _key(config: Any, features: Any, field: str, kind: type, meant: str) -> str:
    known = list(features.keys()) if hasattr(features, "keys") else []
    fitting = [name for name in known if isinstance(features[name], kind)]
    given = config[field]
    chosen = given or meant
    if chosen in fitting:
        return chosen
    if not fitting:
        raise UserError(
            f"config.data.name = {config.name!r}: has no {kind.__name__} feature, so it is no image"
            " classification; take another data set"
        )
    if len(fitting) == 1 and not given and chosen not in known:
        return fitting[0]
    state = (
        f"{chosen!r} is no {kind.__name__} feature of it"
        if chosen in known or given
        else f"it has several {kind.__name__} features"
    )
    raise UserError(
        f"config.data.{field} = {given!r}: {config.name}: {state}; name one of {', '.join(fitting)}"
    )


def _parser(features: Any, image: str, label: str) -> Callable[[bytes], Any]:
    import tensorflow_datasets as tfds

    wanted = tfds.features.FeaturesDict({image: features[image], label: features[label]})
    decoders = {image: tfds.decode.SkipDecoding()}
    return functools.partial(wanted.deserialize_example_np, decoders=decoders)


def _records(builder: Any, split: str) -> Records:
    info = builder.info
    kind = info.file_format.value
    if kind not in _OPENERS:
        raise UserError(
            f"{builder.data_path}: is in TFDS's {kind} format; this package reads"
            f" {' and '.join(_OPENERS)}"
        )
    paths = [pathlib.Path(path) for path in info.splits[split].filepaths]
    return Records(paths, info.splits[split].shard_lengths, _OPENERS[kind])
