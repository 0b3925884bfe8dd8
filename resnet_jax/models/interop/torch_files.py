"""Reading and writing PyTorch weight files: safetensors without PyTorch, pickles with it."""

import argparse
import contextlib
import json
import math
import os
import pathlib
import pickle
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from resnet_jax.errors import UserError, first_line
from resnet_jax.models.interop.state_dicts import find_state_dict

_PICKLES = (".pth", ".pt", ".bin")

# The format's names, from https://huggingface.co/docs/safetensors.
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def read_weights(
    source: str | os.PathLike | Mapping[str, Any], prefix: str = ""
) -> dict[str, np.ndarray]:
    """Reads a state dictionary.

    Args:
      source: a file, whose content tells its format and not its suffix: safetensors, or what
        `torch.save` wrote, which needs PyTorch and may hold nothing but data; or what such a file
        holds, already in memory. What trainers wrap round it is taken off, see `find_state_dict`.
      prefix: of the keys that are wanted, for example "backbone."; taken off.

    Returns:
      key -> array, in the file's own types.

    Raises:
      UserError: names the file and what is wrong with it.
    """
    if isinstance(source, Mapping):
        where, loaded = "the state dictionary given", source
    else:
        where, loaded = Path(source), _read(Path(source))
    return {key: _array(value) for key, value in find_state_dict(loaded, where, prefix).items()}


def write_weights(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Writes a state dictionary whole or not at all; the suffix chooses the format."""
    path = Path(path)
    if path.suffix not in (".safetensors", *_PICKLES):
        raise UserError(f"{path}: unknown kind of weight file; name it .safetensors or .pth")
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix == ".safetensors":
            _write_safetensors(state, partial)
        else:
            torch = _torch(path)
            with partial.open("wb") as file:  # torch's own opening raises no OSError
                torch.save({key: _tensor(torch, value) for key, value in state.items()}, file)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; choose another place"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; fetch it again")
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with its header's length and the header, which is a JSON object; one
    # that is damaged there is still known by its suffix.
    if start[8:] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        if not 2 <= length <= len(data) - 8:
            raise ValueError("its header is cut short or is none")
        header = json.loads(data[8 : 8 + length])
        body = memoryview(data)[8 + length :]
        return {key: _view(body, entry) for key, entry in header.items() if key != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a whole .safetensors file ({error}); fetch it again, or check what it is"
        ) from error


def _view(body: memoryview, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"arrays of type {entry['dtype']} are no weights")
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(body) or end - start != dtype.itemsize * math.prod(shape):
        raise ValueError("arrays reach past its end")
    return np.frombuffer(body[start:end], dtype).reshape(shape)


def _write_safetensors(state: Mapping[str, np.ndarray], path: Path) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, value in state.items():
        start, end = end, end + value.nbytes
        header[key] = {
            "dtype": _NAMES[value.dtype],
            "shape": value.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays start aligned
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in state.values():
            file.write(np.ascontiguousarray(value).tobytes())


def _read_pickle(path: Path) -> Any:
    torch = _torch(path)
    try:
        with torch.serialization.safe_globals(list(_harmless())):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds more than weights, or is no PyTorch file, and was not run; "
            "save only the state_dict, if possible as .safetensors"
        ) from error
    # PyTorch raises RuntimeError, EOFError, ValueError and more for damaged files.
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{path}: not a whole PyTorch file ({reason}); fetch it again") from error


def _harmless() -> Iterator[Any]:
    """Yields the types that trainers keep beside weights: settings, paths, NumPy's numbers.

    Making one of them runs no code of the file's choice. NumPy's module was renamed in 2.0, so
    that a file may have either name.
    """
    yield from (argparse.Namespace, types.SimpleNamespace)
    for name in ("PosixPath", "WindowsPath"):
        for module in ("pathlib", "pathlib._local"):
            yield (pathlib.PurePath, f"{module}.{name}")
    yield from (np.ndarray, np.dtype)
    yield from (type(np.dtype(code)) for code in "?bhilqBHILQefdFDSUMm")
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")
        from numpy._core import multiarray

        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            yield (multiarray.scalar, f"{module}.scalar")
            yield (multiarray._reconstruct, f"{module}._reconstruct")


def _array(value: Any) -> np.ndarray:
    """Returns a tensor of PyTorch's, or an array, as NumPy's."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        return tensor.float().numpy().astype(jnp.bfloat16)
    return tensor.numpy()


def _tensor(torch: Any, array: np.ndarray) -> Any:
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(np.array(array))


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: files of PyTorch's own format need it; pip install torch, or use a"
            " .safetensors file"
        ) from error
    return torch
