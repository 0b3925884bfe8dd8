"""Which data sets there are, by the names that `config.data.name` takes, and their splits."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

from resnet_jax.data import splits
from resnet_jax.data.sources import cifar, digits, folder, idx, shards, synthetic, tars, tfds
from resnet_jax.data.sources.source import DataSet, Source
from resnet_jax.errors import UserError, first_line, nearest


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of data set.

    Attributes:
      open: (`config.data`, say) -> the data set; raises UserError where it is missing or broken,
        and may tell `say` how far a slow reading is.
      directory: what `config.data.dir` must hold; None: it needs no directory.
      evaluation: the default splits for evaluation, the first that is there; for training it is
        "train".
      same: names that mean one split.
    """

    open: Callable[[Any, Callable[[str], None]], DataSet]
    directory: str | None = None
    evaluation: tuple[str, ...] = ("test",)
    same: tuple[str, ...] = ()


_VALIDATION = ("val", "validation", "valid")

SOURCES = {
    "cifar": Kind(cifar.open_data, "the CIFAR files"),
    "digits": Kind(digits.open_data),
    "folder": Kind(folder.open_data, "the image tree", (*_VALIDATION, "test", "all"), _VALIDATION),
    "idx": Kind(idx.open_data, "the IDX files"),
    "imagenet_tars": Kind(tars.open_data, "ImageNet's two tars", ("val",)),
    "shards": Kind(shards.open_data, "the shards that prepare wrote", (*_VALIDATION, "test")),
    "synthetic": Kind(synthetic.open_data, evaluation=("eval",)),
}
_TFDS = Kind(tfds.open_data, evaluation=("validation", "test"))


def check(name: str, directory: str | None) -> None:
    """Checks that `name` is a source of this package, or one that TFDS knows or has prepared.

    Args:
      name: `config.data.name`.
      directory: `config.data.dir`.

    Raises:
      UserError: nobody knows the name, and the message suggests near ones; or it needs a directory.
    """
    kind = SOURCES.get(name)
    if kind and kind.directory and directory is None:
        raise UserError(
            f"config.data.dir = None: data.name {name!r} needs the directory of {kind.directory};"
            " set data.dir"
        )
    if kind or (directory and _is_there(directory, name)):
        return
    import tensorflow_datasets as tfds

    registered = tfds.list_builders(with_community_datasets=False)
    if name.split("/")[0].split(":")[0] in registered:
        return
    hint = (
        nearest(name, [*SOURCES, *registered])
        or f"own sources: {', '.join(SOURCES)}; all others are TFDS's names"
    )
    raise UserError(f"config.data.name = {name!r}: no such data set; {hint}")


def _is_there(directory: str, name: str) -> bool:
    # os.path, since pathlib raises where a directory may not be read, or ~NAME is nobody.
    root, base = pathlib.Path(os.path.expanduser(directory)), pathlib.PurePath(name.split(":")[0])
    return bool(name) and (os.path.isdir(root / base) or base.parts[0] in root.parts)


def open_split(config: Any, train: bool, say: Callable[[str], None]) -> Source:
    """Opens the training or the evaluation split, or the part of it, that `config.data` names.

    Raises:
      UserError: the data is missing or broken, or there is no such split.
    """
    check(config.name, config.dir)
    kind = SOURCES.get(config.name, _TFDS)
    try:
        return _open_split(config, kind, "train_split" if train else "eval_split", say)
    except PermissionError as error:
        raise UserError(
            f"config.data.dir = {config.dir!r}: cannot be read ({first_line(error)}); make it"
            f" readable, or give another directory of {kind.directory or 'the data'}"
        ) from error


def _open_split(config: Any, kind: Kind, field: str, say: Callable[[str], None]) -> Source:
    if config.dir is not None and not os.path.isdir(os.path.expanduser(config.dir)):
        needed = kind.directory or "the data"
        raise UserError(
            f"config.data.dir = {config.dir!r}: no such directory; give that of {needed}"
        )
    found = kind.open(config, say)
    text = getattr(config, field)
    if text:
        part = splits.parse(text, field)
    else:
        part = splits.Part(_default(kind, found, field))
    names = [part.name, *(kind.same if part.name in kind.same else ())]
    name = next((name for name in names if name in found.splits), None)
    if name is None:
        raise splits.absent(field, part.name, list(found.splits), found.where)
    source = found.splits[name]()
    if part.is_whole:
        return source
    return source.part(*part.bounds(len(source)), str(dataclasses.replace(part, name=name)))


def _default(kind: Kind, found: DataSet, field: str) -> str:
    wanted = ("train",) if field == "train_split" else kind.evaluation
    there = [name for name in wanted if name in found.splits]
    several = [name for name in there if name in kind.same]
    if len(several) > 1:
        raise UserError(
            f"config.data.{field} = None: {found.where} has {' and '.join(several)}, which mean the"
            " same; name one of them"
        )
    if there:
        return there[0]
    first = next(iter(found.splits))
    remedy = found.without_split or (
        "name parts that do not overlap, such as"
        f" data.train_split='{first}[:90%]' and data.eval_split='{first}[90%:]'"
    )
    use = "training" if field == "train_split" else "evaluation"
    raise UserError(
        f"config.data.{field} = None: {found.where} has no {use} split ({', '.join(wanted)}), only"
        f" {', '.join(found.splits)}; {remedy}"
    )
