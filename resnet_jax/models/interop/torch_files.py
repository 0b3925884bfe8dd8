"""Reading and writing PyTorch weight files: .safetensors without PyTorch, .pth with it."""

import json
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from resnet_jax.errors import UserError

_PICKLES = (".pth", ".pt", ".bin")
# A trainer's moving average, when there is one, is the network that it evaluates and publishes.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_WRAPPERS = (*_AVERAGES, "state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.", "ema_model.")
_BOOKKEEPING = ("n_averaged", "num_batches_tracked")

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


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a state dictionary.

    Wrappers ("state_dict", "model", a moving average's, which goes first) and prefixes ("module."
    and the like) are taken off, counters of batches left out.

    Args:
      path: ends in .safetensors, or in .pth, .pt or .bin, which need PyTorch and may hold nothing
        but data.

    Returns:
      key -> array, in the file's own types.

    Raises:
      UserError: names the file and what is wrong with it.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", *_PICKLES):
        raise UserError(f"{path}: unknown kind of weight file; name a .safetensors or .pth file")
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; fetch it again")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in _BOOKKEEPING:
        state = {name: value for name, value in state.items() if name.rpartition(".")[2] != key}
    state = _strip(state)
    if not state:
        raise UserError(
            f"{path}: holds no weights; name the file of a trained network's state_dict"
        )
    return state


def write_weights(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Writes a state dictionary whole or not at all; the suffix chooses the format as in
    `read_weights`.
    """
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


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    torch = _torch(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds more than weights, or is no PyTorch file, and was not run; "
            "save only the state_dict, if possible as .safetensors"
        ) from error
    except (
        Exception
    ) as error:  # PyTorch raises RuntimeError, EOFError, ValueError and more for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a whole PyTorch file ({reason}); fetch it again") from error
    state = _unwrap(loaded, torch.Tensor)
    if state is None:
        raise UserError(
            f"{path}: holds no state_dict; name the file of a trained network's state_dict"
        )
    return {key: _array(torch, value) for key, value in state.items()}


def _unwrap(loaded: Any, tensor: type) -> dict[str, Any] | None:
    """Returns the innermost mapping of names to tensors, or None when there is none."""
    while isinstance(loaded, Mapping):
        inner = next(
            (loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None
        )
        if inner is None:
            state = {key: value for key, value in loaded.items() if isinstance(value, tensor)}
            return state or None
        loaded = inner
    return None


def _strip(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in _PREFIXES * 2:  # twice: "module._orig_mod." and "_orig_mod.module." both occur
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _array(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
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
            f"{path}: {path.suffix} files need PyTorch; pip install torch, or use a .safetensors"
            " file"
        ) from error
    return torch
