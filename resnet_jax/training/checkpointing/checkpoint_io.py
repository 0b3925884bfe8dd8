"""The arrays of a checkpoint: copied off the devices, read back onto them, compared."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Sharding
from orbax.checkpoint.options import MultiprocessingOptions

from resnet_jax.errors import UserError


def alone() -> MultiprocessingOptions:
    """Returns the options by which orbax waits for no other process."""
    this = jax.process_index()
    return MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process{this}"
    )


def host_copy(state: Any) -> Any:
    """Returns a tree of NumPy arrays that no later step can change; the state is the same on every
    device.
    """
    leaves = [leaf.addressable_data(0) for leaf in jax.tree.leaves(state)]
    for leaf in leaves:
        leaf.copy_to_host_async()
    # A view of a CPU buffer would change once the step that is given the state writes its own
    # there.
    return jax.tree.unflatten(
        jax.tree.structure(state), [np.array(leaf, copy=True) for leaf in leaves]
    )


def read_state(path: epath.Path, like: Any) -> Any:
    """Reads the whole state of a checkpoint onto the devices.

    Args:
      path: of the checkpoint.
      like: a tree of arrays or `jax.ShapeDtypeStruct`, with shardings.

    Returns:
      A tree like `like`.

    Raises:
      UserError: the checkpoint holds other arrays than `like`; the message lists them.
    """
    differences = compare_shapes(_shapes(like), _shapes(_saved_tree(path)))
    if differences:
        raise UserError(
            f"checkpoint {path} is of another network or optimizer: {'; '.join(differences)}"
        )
    host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    read = ocp.StandardCheckpointHandler(multiprocessing_options=alone()).restore(
        path / "state", args=ocp.args.StandardRestore(host)
    )
    return jax.tree.map(lambda array, leaf: _place(array, leaf.sharding), read, like)


def read_variables(path: epath.Path, sharding: Sharding) -> dict[str, Any]:
    """Reads the parameters and statistics of a checkpoint, placed as `sharding` says."""
    tree = _saved_tree(path)
    wanted = {
        name: jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree[name])
        for name in ("params", "batch_stats")
    }
    read = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone()).restore(
        path / "state",
        args=ocp.args.PyTreeRestore(
            item=wanted,
            partial_restore=True,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
        ),
    )
    return jax.tree.map(lambda array: _place(array, sharding), read)


def _place(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _saved_tree(path: epath.Path) -> Any:
    """Returns a checkpoint's tree with a description of each array in its place."""
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone())
    return handler.metadata(path / "state").tree


def _shapes(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        "/".join(
            str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path
        ): f"{jax.numpy.dtype(leaf.dtype).name}[{', '.join(map(str, leaf.shape))}]"
        for path, leaf in leaves
    }


def compare_shapes(
    expected: Mapping[str, str], found: Mapping[str, str], most: int = 5
) -> list[str]:
    """Returns a clause for each array that differs in name, type or shape, the first `most` of
    them.
    """
    clauses = []
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            clauses.append(
                f"{name} is {found.get(name, 'absent')}, expected {expected.get(name, 'none')}"
            )
    return clauses[:most] + ([f"and {len(clauses) - most} more"] if len(clauses) > most else [])
