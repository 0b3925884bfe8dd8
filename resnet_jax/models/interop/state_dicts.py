"""Where in a trainer's file the state dictionary is: wrappers, averages and prefixes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from resnet_jax.errors import UserError

# A trainer's moving average, when there is one, is the network that it evaluates and publishes.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_WRAPPERS = (*_AVERAGES, "state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.", "ema_model.")
_BOOKKEEPING = ("n_averaged", "num_batches_tracked")


def find_state_dict(loaded: Any, where: Any, prefix: str = "") -> dict[str, Any]:
    """Finds the state dictionary in what a trainer saved.

    A moving average goes first unless it is empty, then the usual names of wrappers, then the one
    entry that maps names to arrays, whatever it is called. Counters of batches are left out.

    Args:
      loaded: what the file holds.
      where: the file, for messages.
      prefix: of the keys that are wanted, or the name of the entry that is; taken off.

    Returns:
      key -> tensor or array.

    Raises:
      UserError: there is no state dictionary, more than one, or none with the prefix.
    """
    entry = prefix.rstrip(".")
    if entry and isinstance(loaded, Mapping) and isinstance(loaded.get(entry), Mapping):
        loaded, prefix = loaded[entry], ""
    state = _unwrap(loaded, where)
    if not state:
        raise UserError(
            f"{where}: holds no weights; name the file of a trained network's state_dict"
        )
    state = {key: value for key, value in state.items() if key.split(".")[-1] not in _BOOKKEEPING}
    return _under(state, prefix, where) if prefix else state


def without_wrappers(state: Mapping[str, Any]) -> dict[str, Any]:
    """Takes off the prefixes that wrappers of PyTorch's and Lightning's add to every key."""
    for prefix in _PREFIXES * 2:  # twice: "module._orig_mod." and "_orig_mod.module." both occur
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def likely_prefix(keys: Iterable[str], expected: Iterable[str]) -> str:
    """Returns the prefix under which most of the expected keys are; "" when hardly any are."""
    expected = list(expected)
    wanted = set(expected)
    found: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in wanted:
                found[".".join(parts[:cut]) + "."] += 1
    # The first of two that hold the same number: MoCo's encoder_q, not its average encoder_k.
    prefix, count = max(found.items(), key=lambda item: item[1], default=("", 0))
    return prefix if count > len(expected) / 2 else ""


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_state(value: Any) -> bool:
    """Whether a value maps the dotted names of a network's parts to arrays."""
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and "." in key and _is_array(leaf) for key, leaf in value.items()
    )


def _unwrap(loaded: Any, where: Any) -> dict[str, Any]:
    """Returns the innermost mapping of names to arrays; {} when there is none."""
    if not isinstance(loaded, Mapping):
        return {}
    for key in _WRAPPERS:
        if state := _unwrap(loaded.get(key), where):
            return state
    if _is_state(loaded):
        return {key: value for key, value in loaded.items() if _is_array(value)}
    entries = {key: _unwrap(value, where) for key, value in loaded.items() if isinstance(key, str)}
    found = {key: state for key, state in entries.items() if state}
    if len(found) > 1:
        raise UserError(
            f"{where}: holds the weights of {len(found)} networks ({', '.join(sorted(found))});"
            f" choose one with prefix={min(found)!r}"
        )
    return next(iter(found.values()), {})


def _under(state: dict[str, Any], prefix: str, where: Any) -> dict[str, Any]:
    kept = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    if not kept:
        starts = sorted({key.split(".")[0] + "." for key in state})
        raise UserError(
            f"{where}: no key starts with prefix={prefix!r}; its keys start with"
            f" {', '.join(starts[:12])}"
        )
    return kept
