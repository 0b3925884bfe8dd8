"""What checkpoints need of orbax: arrays off the devices and back onto them, and its writer."""

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Sharding
from orbax.checkpoint.options import MultiprocessingOptions

from resnet_jax.errors import UserError, first_line
from resnet_jax.training.checkpointing import checksums

TEMPORARY = ".orbax-checkpoint-tmp"
COMMITTED = "commit_success.txt"
WRITTEN_LATE = (COMMITTED, "_CHECKPOINT_METADATA")
"""Names that orbax keeps to itself: in that of an unfinished directory, of the file that says that
a save is complete, and of the files that it writes after our checksums; no array is read by them.
"""

_AVERAGE = "ema"


@dataclasses.dataclass(frozen=True)
class Notes:
    """What a checkpoint holds beside the state.

    Attributes:
      step: steps taken.
      scores: the evaluation made at this step, {} if there was none.
      meters: the loop's running sums, so that a resumed log goes on as if nothing had happened.
    """

    step: int
    scores: Mapping[str, float]
    meters: Mapping[str, Any]


def rank(scores: Mapping[str, float], best_metric: str) -> tuple[float, float]:
    """Returns what is larger for better scores: by the metric, and of equals by the loss."""
    sign = -1 if best_metric == "loss" else 1
    ranks = sign * scores[best_metric], -scores.get("loss", math.inf)
    metric, loss = (-math.inf if math.isnan(value) else value for value in ranks)
    return metric, loss


def without_waiting() -> MultiprocessingOptions:
    """Returns the options with which orbax waits for no other process."""
    # Barriers of one process and a prefix of its own: orbax would otherwise wait for all, and a
    # process that is late or gone would hold up the one that writes.
    this = jax.process_index()
    return MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process{this}"
    )


def open_writer(before_commit: Callable[[], None]) -> ocp.AsyncCheckpointer:
    """Returns what saves in a thread of its own, which calls `before_commit` at the end."""
    logging.getLogger("absl").addFilter(_is_not_orbax)
    options = without_waiting()
    return ocp.AsyncCheckpointer(
        ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=options)
        ),
        async_options=ocp.AsyncOptions(post_finalization_callback=before_commit),
        multiprocessing_options=options,
    )


def discard_writer(writer: ocp.AsyncCheckpointer) -> None:
    """Closes the writer of a failed save."""
    # Arrays, notes and metadata are written side by side: each may fail, and raises when it is
    # waited for.
    for _ in range(10):
        with contextlib.suppress(Exception):
            writer.wait_until_finished()
            writer.close()
            return


def _is_not_orbax(record: logging.LogRecord) -> bool:
    # A failed save is said in a line; orbax would log its traceback.
    return "orbax" not in record.pathname


def reason(error: BaseException) -> str:
    """Returns an error's own line, or that of the failing system call that caused it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return first_line(error)


def host_copy(state: Any) -> Any:
    """Returns a state as a tree of NumPy arrays that no later step can change."""
    # Every device holds the whole state, so any copy will do.
    leaves = [leaf.addressable_data(0) for leaf in jax.tree.leaves(state)]
    for leaf in leaves:
        leaf.copy_to_host_async()
    # On a CPU the array is a view of the buffer, into which the next step writes its own result.
    return jax.tree.unflatten(
        jax.tree.structure(state), [np.array(leaf, copy=True) for leaf in leaves]
    )


def read_notes(path: epath.Path, step: int) -> Notes:
    """Reads what a checkpoint holds beside the state.

    Raises:
      UserError: it is there and cannot be read.
    """
    file = path / "notes" / "metadata"
    try:
        saved = json.loads(file.read_text())
    except checksums.ABSENT:
        raise
    except OSError as error:
        raise checksums.unreadable(file, error) from error
    return Notes(step, saved["scores"], saved["meters"])


def read_state(path: epath.Path, like: Any) -> Any:
    """Reads the whole state of a checkpoint onto the devices.

    A moving average that only one of the two has is left out.

    Args:
      path: of the checkpoint.
      like: what `TrainState.saved` returns, of arrays or `jax.ShapeDtypeStruct` with shardings.

    Returns:
      A tree like `like`.

    Raises:
      UserError: the checkpoint holds other arrays than `like`; the message lists them.
    """
    saved = _saved_tree(path)
    unwanted = {}
    if _AVERAGE not in saved:
        like = {name: part for name, part in like.items() if name != _AVERAGE}
    elif _AVERAGE not in like:
        unwanted = {_AVERAGE: saved[_AVERAGE]}  # orbax reads all that there is
    differences = compare_shapes(_shapes(like | unwanted), _shapes(saved))
    if differences:
        raise UserError(
            f"checkpoint {path} is of another network or optimizer: {'; '.join(differences)}; give"
            " another --workdir, or the recipe that it is of"
        )
    # Into NumPy first, whatever devices wrote it: so it can be placed on any number of others.
    host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like | unwanted)
    read = ocp.StandardCheckpointHandler(multiprocessing_options=without_waiting()).restore(
        path / "state", args=ocp.args.StandardRestore(host)
    )
    read = {name: read[name] for name in like}
    return jax.tree.map(lambda array, leaf: _place(array, leaf.sharding), read, like)


def read_variables(path: epath.Path, sharding: Sharding) -> dict[str, Any]:
    """Reads the parameters and statistics of a checkpoint, placed as `sharding` says.

    Where there is a moving average, they are its own.
    """
    tree = _saved_tree(path)
    is_averaged = _AVERAGE in tree
    variables = tree[_AVERAGE] if is_averaged else tree
    wanted = {
        name: jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), variables[name])
        for name in ("params", "batch_stats")
    }
    wanted = {_AVERAGE: wanted} if is_averaged else wanted
    read = ocp.PyTreeCheckpointHandler(multiprocessing_options=without_waiting()).restore(
        path / "state",
        args=ocp.args.PyTreeRestore(
            item=wanted,
            partial_restore=True,  # the optimizer may be another by now, and is as large
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
        ),
    )
    read = read[_AVERAGE] if is_averaged else read
    return jax.tree.map(lambda array: _place(array, sharding), read)


def _place(array: np.ndarray, sharding: Sharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _saved_tree(path: epath.Path) -> Any:
    """Returns a checkpoint's tree with a description of each array in its place."""
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=without_waiting())
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
    """Returns a clause for each array that differs in name, type or shape, at most `most`."""
    clauses = []
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            clauses.append(
                f"{name} is {found.get(name, 'absent')}, expected {expected.get(name, 'none')}"
            )
    return clauses[:most] + ([f"and {len(clauses) - most} more"] if len(clauses) > most else [])
