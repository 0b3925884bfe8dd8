"""torchvision's and timm's weights in and out."""

import math
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.errors import UserError
from resnet_jax.models.interop.state_dicts import likely_prefix, without_wrappers
from resnet_jax.models.interop.torch_files import read_weights, write_weights
from resnet_jax.models.interop.torch_names import (
    Path,
    TorchArray,
    from_torch,
    from_transformers,
    to_torch,
    torch_array,
)
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.zoo import create_model

Place = tuple[str, Path]
_FIRST_KERNELS = ("conv1.weight", "conv1.0.weight", "stem.conv.weight", "stem.conv1.weight")
_HEADS = ("fc.", "head.fc.")
_ROWS_SHOWN = 20


def load_torch(
    model: ResNet | str,
    source: str | os.PathLike | Mapping[str, Any],
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    prefix: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Reads weights of torchvision's, timm's or transformers' as variables of a network.

    Args:
      model: the network, or its name for `create_model`.
      source: a file of safetensors, or with PyTorch installed one that `torch.save` wrote, whatever
        their suffix and however a trainer wrapped it; or a state dictionary in memory.
      num_classes: asks for a classifier of this size: the file's where it has that size (with a
        bias of zero where it has none), else a fresh one; 0 leaves it out. None: the network's own
        size, which the file must then have.
      in_channels: asks for this many image channels: the first kernel is summed for one channel and
        repeated in turn, with its sum kept, for others, as timm does. None: as the file has.
      prefix: of the keys to take, for example "module.encoder_q."; others are left out.
      seed: of a fresh classifier.

    Returns:
      {"params", "batch_stats"}, in the network's `param_dtype`.

    Raises:
      UserError: the file is missing, damaged or foreign, or arrays do not fit: then a table of key,
        expected and found shape follows the message's first line. Nothing is half-loaded.
    """
    model = _network(model, num_classes)
    read = read_weights(source, prefix)
    state = {from_transformers(key): value for key, value in without_wrappers(read).items()}
    first = next((key for key in _FIRST_KERNELS if key in state and state[key].ndim == 4), None)
    if in_channels is None:
        in_channels = int(state[first].shape[1]) if first else 3
    elif first:
        state[first] = adapt_channels(state[first], in_channels)
    places = _places(model, in_channels)
    if num_classes is not None:
        state = _resize_head(state, places, seed)
    where = "the state dictionary given" if isinstance(source, Mapping) else source
    _check_fit(where, state, places, read)
    return _assemble(state, places, model.param_dtype)


def save_torch(variables: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Writes variables as a state dictionary that torchvision (v2 nets: timm) loads with
    `strict=True`.

    Args:
      variables: {"params"} and, with BatchNorm, {"batch_stats"} of a `ResNet`.
      path: .safetensors, or .pth with PyTorch installed. Written whole or not at all.

    Raises:
      UserError: the file cannot be written, or its suffix is neither.
    """
    variables = {
        name: tree for name, tree in variables.items() if name in ("params", "batch_stats")
    }
    preactivation = _is_preactivation(variables)
    state: dict[str, np.ndarray] = {}
    for (_, path_), leaf in _flatten(variables).items():
        target = torch_array(path_, leaf.shape, preactivation)
        state[target.key] = to_torch(np.asarray(leaf), target)
        if path_[-1] == "var":
            state[target.key.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    write_weights(state, path)


def _network(model: ResNet | str, num_classes: int | None) -> ResNet:
    if isinstance(model, str):
        return create_model(model, num_classes=num_classes)
    if num_classes is not None and num_classes != model.num_classes:
        raise UserError(
            f"num_classes = {num_classes}: the network given has model.num_classes ="
            f" {model.num_classes}; create it with the number wanted"
        )
    return model


def _places(model: ResNet, in_channels: int) -> dict[Place, TorchArray]:
    """Returns where each leaf of the network's variables is in PyTorch."""
    size = model.smallest_image()
    image = jax.ShapeDtypeStruct((1, size, size, in_channels), model.param_dtype)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    preactivation = _is_preactivation(shapes)
    return {
        place: torch_array(place[1], leaf.shape, preactivation)
        for place, leaf in _flatten(shapes).items()
    }


def _is_preactivation(variables: Mapping[str, Any]) -> bool:
    # A v2 block has no normalisation after its last convolution, so its net has one before the
    # head.
    return "norm" in variables["params"]


def _flatten(variables: Mapping[str, Any]) -> dict[Place, Any]:
    leaves = jax.tree.leaves_with_path(variables)
    names = [(tuple(key.key for key in path), leaf) for path, leaf in leaves]
    return {(collection, tuple(path)): leaf for (collection, *path), leaf in names}


def adapt_channels(kernel: np.ndarray, channels: int, axis: int = 1) -> np.ndarray:
    """Makes the first kernel one for other channels, of the same output for equal channels.

    Args:
      kernel: [F, C, kh, kw], or another layout with the channels in `axis`.
      channels: one: the kernel is summed; others: it is repeated in turn, its sum kept, as in timm.
    """
    found = kernel.shape[axis]
    if channels == found:
        return kernel
    wide = kernel.astype(np.float32)
    if channels == 1:
        wide = wide.sum(axis, keepdims=True)
    else:
        wide = np.take(wide, np.arange(channels) % found, axis=axis) * (found / channels)
    return wide.astype(kernel.dtype)


def classes_of(state: Mapping[str, np.ndarray]) -> int | None:
    """Returns how many classes the classifier of a state dictionary has; None without one."""
    names = [f"{head}weight" for head in _HEADS]
    state = without_wrappers(state)
    heads = (value for key, value in state.items() if from_transformers(key) in names)
    return next((value.shape[0] for value in heads), None)


def _resize_head(
    state: dict[str, np.ndarray], places: Mapping[Place, TorchArray], seed: int
) -> dict[str, np.ndarray]:
    """Returns the state with a classifier of the network's size: its own, a fresh one, or none."""
    heads = {path[-1]: target for (_, path), target in places.items() if path[0] == "fc"}
    body = {key: value for key, value in state.items() if not key.startswith(_HEADS)}
    if not heads:
        return body
    kernel, bias = heads["kernel"], heads["bias"]
    none = np.zeros(bias.shape, np.float32)
    if kernel.key in state and _squeeze(state[kernel.key].shape) == _squeeze(kernel.shape):
        return {bias.key: none, **state}
    bound = 1 / math.sqrt(kernel.shape[1])
    fresh = np.random.default_rng(seed).uniform(-bound, bound, kernel.shape).astype(np.float32)
    return {**body, kernel.key: fresh, bias.key: none}


def _check_fit(
    where: Any,
    state: Mapping[str, np.ndarray],
    places: Mapping[Place, TorchArray],
    names_in_file: Collection[str],
) -> None:
    expected = {target.key: target.shape for target in places.values()}
    rows = []
    for key in sorted(expected.keys() | state.keys()):
        found = state[key].shape if key in state else None
        if found is None or key not in expected or _squeeze(found) != _squeeze(expected[key]):
            rows.append((key, str(expected.get(key, "nothing")), str(found or "nothing")))
        elif not jnp.issubdtype(state[key].dtype, jnp.floating):
            rows.append((key, "floating point", str(state[key].dtype)))
    if not rows:
        return
    if likely_prefix(state, expected):
        prefix = likely_prefix(names_in_file, expected)
        others = _grouped((key for key in names_in_file if not key.startswith(prefix)), prefix)
        beside = f", beside {', '.join(others)}" if others else ""
        raise UserError(
            f"{where}: the network's arrays have names that start with {prefix!r}{beside}; give"
            f" prefix={prefix!r}, which a recipe has as init.prefix"
        )
    hint = ""
    if all(row[0].startswith(_HEADS) for row in rows):
        hint = ", or give num_classes= for a classifier of another size"
    shown = [("key", "expected", "found"), *rows[:_ROWS_SHOWN]]
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in shown
    ]
    if len(rows) > _ROWS_SHOWN:
        lines.append(f"and {len(rows) - _ROWS_SHOWN} more")
    raise UserError(
        f"{where}: {len(rows)} of its arrays do not fit the network; name the network it was made"
        f" for{hint}:\n" + "\n".join(line.rstrip() for line in lines)
    )


def _grouped(keys: Iterable[str], prefix: str) -> list[str]:
    """Returns the beginnings of keys, as deep as `prefix` is, each once."""
    depth = prefix.count(".")
    return sorted(
        {".".join(key.split(".")[:depth]) + "." * (key.count(".") >= depth) for key in keys}
    )


def _squeeze(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drops the last two axes where they are a 1x1 kernel's, which PyTorch nets write as matrices
    as well.
    """
    return shape[:2] if shape[2:] == (1, 1) else shape


def _assemble(
    state: Mapping[str, np.ndarray], places: Mapping[Place, TorchArray], dtype: Any
) -> dict[str, Any]:
    stats_dtype = jnp.promote_types(dtype, jnp.float32)
    variables: dict[str, Any] = {}
    for (collection, path), target in places.items():
        array = from_torch(state[target.key].reshape(target.shape), target)
        node = variables.setdefault(collection, {})
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = jnp.asarray(array, dtype if collection == "params" else stats_dtype)
    return variables
