"""Networks that others trained: by the name of a repository, or from a directory of its form."""

import csv
import fnmatch
import functools
import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.data.sources import imagenet
from resnet_jax.description import Description
from resnet_jax.errors import UserError, nearest
from resnet_jax.models.depths import first_kernel
from resnet_jax.models.interop import hub
from resnet_jax.models.interop.pretrained_config import read_config
from resnet_jax.models.interop.torch_files import read_weights
from resnet_jax.models.interop.torch_weights import classes_of, load_torch
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.zoo import create_model

_SIZES = ("train", "test")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_LICENCE = re.compile(r"^license:\s*(\S+)", re.MULTILINE)


class Pretrained(NamedTuple):
    """A row of the table of repositories worth knowing, `pretrained.csv`.

    Attributes:
      name: of the repository.
      network: the row of `list_models` that it is of.
      train_size: side in pixels that it was trained at.
      size, crop, interpolation: of the images that gave `top1`.
      top1: published accuracy on ImageNet's validation images, in per cent.
      licence: of the weights.
      origin: who trained it, an address; "" where the list does not tell.
    """

    name: str
    network: str
    train_size: int
    size: int
    crop: float
    interpolation: str
    top1: float
    licence: str
    origin: str


def load_pretrained(
    name: str, *, revision: str = "main", size: str = "train", model: str | None = None
) -> tuple[ResNet, dict[str, Any], Description]:
    """Reads a network that others trained.

    Args:
      name: a repository of the Hugging Face hub in timm's form or in that of transformers'
        ResNetForImageClassification, for example "timm/resnet50.a1_in1k"; a directory of that
        form; or a file of weights, as `load_torch` reads them.
      revision: a branch, a tag or a commit of the repository.
      size: "train" describes images of the size that the network was trained at, "test" of the
        size that its authors score it at, where they give one.
      model: of a file, the network's name for `create_model`. Its images are taken to be prepared
        as torchvision prepares them: 224 pixels, bilinear, ImageNet's mean and standard deviation.

    Returns:
      The Flax module, its variables ("params" and "batch_stats"), and what they are.

    Raises:
      UserError: there is no such repository or it cannot be fetched, or its network is not one of
        `list_models`.
    """
    if size not in _SIZES:
        raise UserError(f"size = {size!r}: must be one of {', '.join(_SIZES)}")
    if Path(name).is_file():
        return _load_file(Path(name), model)
    if model is not None:
        raise UserError(
            f"model = {model!r}: is for a file of weights, and {name} is none; leave it out"
        )
    directory, commit = Path(name), None
    if not directory.is_dir():
        directory, commit = hub.fetch(str(name), revision, _advice(str(name)))
    config = read_config(
        _read_json(directory / "config.json"),
        _read_json(directory / "preprocessor_config.json", optional=True),
        size,
        name,
    )
    files = _weight_files(directory)
    state: dict[str, np.ndarray] = {}
    for file in files:
        state |= read_weights(file)
    network = create_model(config.network, **config.fields)
    description = Description(
        classes=config.classes or _class_names(network.num_classes),
        licence=config.licence or _card_licence(directory) or "unknown",
        source=str(name),
        commit=commit,
        digest=digest(files),
        **config.preprocessing,
    )
    return network, load_torch(network, state), description


def _load_file(path: Path, model: str | None) -> tuple[ResNet, dict[str, Any], Description]:
    if model is None:
        raise UserError(
            f"{path}: a file of weights does not tell its network; give model=, a name that"
            " list_models() gives (on the command line --model)"
        )
    num_classes = classes_of(read_weights(path))
    network = create_model(model, num_classes=num_classes or 0)
    variables = load_torch(network, path)
    channels = first_kernel(variables["params"]).shape[2]
    if channels != 3:
        raise UserError(
            f"{path}: its images have {channels} channels, and a file does not tell their mean and"
            " deviation; give a directory with timm's config.json"
        )
    return (
        network,
        variables,
        Description(
            classes=_class_names(network.num_classes), source=str(path), digest=digest([path])
        ),
    )


def list_pretrained(pattern: str = "*") -> list[str]:
    """Returns the names of known repositories whose part behind the owner matches a pattern.

    For example "resnet50*"; docs/pretrained.md tells what each of them is. `load_pretrained` takes
    others too.
    """
    names = [row.name for row in table()]
    return sorted(name for name in names if fnmatch.fnmatch(name.rpartition("/")[2], pattern))


@functools.cache
def table() -> tuple[Pretrained, ...]:
    """Returns the rows of `pretrained.csv`."""
    text = (importlib.resources.files("resnet_jax") / "pretrained.csv").read_text()
    kinds = Pretrained.__annotations__.values()
    header, *rows = csv.reader(text.splitlines())
    assert tuple(header) == Pretrained._fields
    return tuple(
        Pretrained(*(kind(cell) for kind, cell in zip(kinds, row, strict=True))) for row in rows
    )


def _advice(name: str) -> str:
    known = [row.name for row in table()]
    # Without its owner a name is near to many others.
    close = nearest(name if "/" in name else f"timm/{name}", known)
    return close or "list_pretrained() names some that are"


def _read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    if not path.is_file():
        if optional:
            return {}
        raise UserError(
            f"{path}: no such file; a pretrained network's directory has a config.json, and"
            " load_torch reads weights without one"
        )
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not whole JSON ({error}); fetch it again") from error


def _weight_files(directory: Path) -> list[Path]:
    """Returns the files that hold the weights, of both formats the one that needs no PyTorch."""
    for name in _WEIGHTS:
        index = directory / f"{name}.index.json"
        if (directory / name).is_file():
            return [directory / name]
        if index.is_file():
            names = sorted(set(_read_json(index)["weight_map"].values()))
            missing = [part for part in names if not (directory / part).is_file()]
            if missing:
                raise UserError(
                    f"{directory / missing[0]}: the index names it, and it is missing; fetch it"
                    " again"
                )
            return [directory / part for part in names]
    raise UserError(f"{directory}: holds none of {', '.join(_WEIGHTS)}; fetch it again")


def digest(files: Sequence[Path]) -> str:
    """Returns the SHA-256 of files of weights, one after another."""
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                found.update(chunk)
    return found.hexdigest()


def _card_licence(directory: Path) -> str | None:
    """Returns the licence that the header of a model card names."""
    card = directory / "README.md"
    if not card.is_file():
        return None
    parts = card.read_text(errors="replace").split("---\n", 2)
    found = _LICENCE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return found[1] if found else None


def _class_names(num_classes: int) -> tuple[str, ...]:
    if num_classes == 1000:
        return imagenet.class_names()
    return tuple(str(number) for number in range(num_classes))
