"""A network's card, in Markdown with the header that model hubs read."""

import importlib.metadata
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from etils import epath

import resnet_jax
from resnet_jax import config as config_lib
from resnet_jax import pretrained
from resnet_jax.description import Description
from resnet_jax.models import zoo
from resnet_jax.models.analysis.counting import count_params
from resnet_jax.run_files import read_starts

_CLASSES_SHOWN = 100


def make_card(
    model: nn.Module,
    variables: Mapping[str, Any],
    description: Description,
    *,
    library: str,
    code: str,
    notes: Sequence[str],
) -> str:
    """Returns the card of an exported network.

    Args:
      model: the network.
      variables: its variables.
      description: what it is.
      library: the name of the library that runs the file, as hubs spell it.
      code: Python's lines that run the file.
      notes: lines about the file.
    """
    header = {
        "license": description.licence,
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": "[image-classification, resnet]",
    }
    facts = {
        "parameters": f"{count_params(variables):,}",
        "classes": model.num_classes or "none: it gives features",
        "weights from": f"{description.source}{_version(description)}",
        "SHA-256 of the weights": description.digest or "",
    }
    sections = {
        "Use": f"```python\n{code}\n```",
        "This file": "\n".join(f"- {note}" for note in notes),
        "Preparing images": _images(description),
        "Results": _results(description),
        "Data and recipe": _recipe(description),
        "Classes": _classes(description.classes),
        "Licence": _licences(description),
        "Versions": _table(_versions(description)),
    }
    lines = ["---", *(f"{key}: {value}" for key, value in header.items()), "---", ""]
    lines += [f"# {_title(description)}", "", _table(facts), ""]
    for title, text in sections.items():
        lines += [f"## {title}", "", text, ""]
    return "\n".join(lines)


def _title(description: Description) -> str:
    config = description.config
    if config is None:
        return description.source.rpartition("/")[2]
    return f"{zoo.describe(config.model)}, trained on {config.data.name}"


def _images(description: Description) -> str:
    size = description.eval_size
    return _table(
        {
            "side after the resize": f"{max(size, round(size / description.crop))} pixels",
            "part that is kept": f"{size} × {size}, {description.crop_mode}",
            "filter": description.interpolation,
            "channels": len(description.mean),
            "mean of pixels in 0..1": ", ".join(map(str, description.mean)),
            "standard deviation": ", ".join(map(str, description.std)),
            "trained at": f"{description.image_size} pixels",
        }
    )


def _licences(description: Description) -> str:
    unknown = "unknown: fill it in before you pass it on"
    known = description.licence != "unknown"
    return _table(
        {
            "of the weights": description.licence if known else unknown,
            "of the data": unknown,
            "of the code that made this, resnet_jax": "apache-2.0",
        }
    )


def _version(description: Description) -> str:
    if description.commit:
        return f", commit {description.commit}"
    return "" if description.step is None else f", step {description.step}"


def _results(description: Description) -> str:
    if description.config is None:
        row = next((row for row in pretrained.table() if row.name == description.source), None)
        if row is None:
            return "None are known here: see where the weights are from."
        return (
            f"Top-1 {row.top1:.2f} % on ImageNet's 50,000 validation images, published by timm for"
            f" {row.size} pixels, crop {row.crop:g}, {row.interpolation}; not measured here."
        )
    if not description.scores:
        return "It was not evaluated at this step."
    split = description.config.data.eval_split or "its evaluation split"
    command = shlex.join(
        ["--mode=evaluate", f"--workdir={description.source}", f"--which={description.step}"]
    )
    scores = ", ".join(f"{name} {value:.4f}" for name, value in description.scores.items())
    return f"On {split} of the data: {scores}.\n\n    python launch.py {command}"


def _recipe(description: Description) -> str:
    if description.config is None:
        return "Not known here: see where the weights are from."
    usual = dict(config_lib.flatten(config_lib.defaults()))
    fields = {
        f"`{name}`": f"`{json.dumps(value)}`"
        for name, value in config_lib.flatten(description.config)
        if value != usual[name]
    }
    start = _start(description)
    images = f", {start['train_images']:,} training images" if "train_images" in start else ""
    command = shlex.join(start.get("command", []))
    began = f"\n\n    {command}" if command else ""
    return (
        f"{description.config.data.name}{images}. The recipe, where it is not the default:"
        f"\n\n{_table(fields, ('field', 'value'))}{began}"
    )


def _classes(classes: Sequence[str]) -> str:
    if not classes:
        return "Their names are not known."
    if len(classes) > _CLASSES_SHOWN:
        return f"{len(classes)}: `classes.txt` names them in the order of the answers."
    return "In the order of the answers: " + ", ".join(classes) + "."


def _versions(description: Description) -> dict[str, Any]:
    start = _start(description)
    trained = start.get("packages", {})
    versions = {
        f"{name} (export)": importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")
    }
    versions["resnet_jax (export)"] = resnet_jax.__version__
    versions |= {f"{name} (training)": version for name, version in trained.items()}
    if "devices" in start:
        versions["devices (training)"] = start["devices"]
    if start.get("commit"):
        versions["commit (training)"] = start["commit"]
    return versions


def _start(description: Description) -> dict[str, Any]:
    """Returns what the run noted as it began last, {} for weights of others."""
    if description.config is None:
        return {}
    return (read_starts(epath.Path(description.source)) or [{}])[-1]


def _table(rows: Mapping[str, Any], header: tuple[str, str] = ("", "")) -> str:
    lines = [f"| {' | '.join(header)} |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items() if value != ""]
    return "\n".join(lines)
