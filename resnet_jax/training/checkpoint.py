"""Checkpoints on disk: saved behind the training, sealed by a digest, the newest and the best kept."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from resnet_jax import parallel
from resnet_jax.errors import UserError
from resnet_jax.fields import Field

FIELDS = {
    "every_epochs": Field(1.0, "epochs between checkpoints, may be a fraction", above=0),
    "every_minutes": Field(None, "minutes between checkpoints, beside every_epochs", type=float, above=0),
    "keep": Field(3, "how many of the latest are kept, beside the best", at_least=2),
    "best_metric": Field("top1", "what makes a checkpoint the best", choices=("top1", "top5", "loss")),
}

DIGEST = "digest.json"
_TEMPORARY = ".orbax-checkpoint-tmp"


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


class Checkpoints:
    """The checkpoints of one run: `directory/<step>/`, written by orbax.

    A save runs behind the training. Before orbax commits it by a rename, the SHA-256 of every file goes into
    `digest.json`, so a committed checkpoint can be told from a damaged one. Old ones are removed only after a
    newer one is committed: the latest `keep` stay, and the best. Every process calls every method.

    Args:
      directory: where the checkpoints are.
      keep: how many of the latest stay.
      best_metric: "top1" or "top5" (larger is better) or "loss" (smaller is better).
      say: called with a line when something goes wrong but training can go on.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep: int = 3,
        best_metric: str = "top1",
        say: Callable[[str], None] = print,
    ):
        self.directory = epath.Path(directory)
        self._keep = keep
        self._best_metric = best_metric
        self._say = say
        self._saving: int | None = None
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )

    def steps(self) -> list[int]:
        """Returns the steps of all committed checkpoints, in rising order."""
        if not self.directory.exists():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def best_step(self) -> int | None:
        """Returns the step of the best scored checkpoint (the first of equals), or None."""
        scored = [self.notes(step) for step in self.steps()]
        ranked = [(self._rank(notes.scores), -notes.step) for notes in scored if notes.scores]
        return -max(ranked)[1] if ranked else None

    def notes(self, step: int) -> Notes:
        """Reads what was noted beside the state of a checkpoint."""
        saved = json.loads((self.directory / str(step) / "notes" / "metadata").read_text())
        return Notes(step, saved["scores"], saved["meters"])

    def save(self, state: Any, notes: Notes) -> None:
        """Starts saving; returns once the state is copied off the devices.

        A save that fails is reported through `say`, here or in `poll`, and leaves the older ones alone.
        """
        self.wait()
        step = notes.step
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if parallel.is_lead():
                self._remove_unfinished()
            self._saving = step
            self._checkpointer.save(
                self.directory / str(step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    notes=ocp.args.JsonSave({"scores": dict(notes.scores), "meters": dict(notes.meters)}),
                ),
                force=step in self.steps(),
            )
        except Exception as error:
            self._report(error)

    def poll(self) -> None:
        """Notices a save that has ended, well or badly; returns at once."""
        if self._saving is None:
            return
        try:
            self._checkpointer.check_for_errors()
        except Exception as error:
            self._report(error)
            return
        if (self.directory / str(self._saving)).exists():
            self._prune()

    def wait(self) -> bool:
        """Waits for the save under way; returns whether the last one arrived."""
        if self._saving is None:
            return True
        try:
            self._checkpointer.wait_until_finished()
        except Exception as error:
            self._report(error)
            return False
        self._prune()
        return True

    def newest_sound(self) -> int | None:
        """Returns the newest checkpoint whose files are as they were written; damaged ones are moved aside."""
        newest = None
        if parallel.is_lead():
            for step in reversed(self.steps()):
                fault = self.fault(step)
                if fault is None:
                    newest = step
                    break
                self.move_aside(step, fault)
        newest = parallel.lead_says(-1 if newest is None else newest)
        return None if newest < 0 else newest

    def fault(self, step: int) -> str | None:
        """Returns what is wrong with a checkpoint's files, or None."""
        directory = self.directory / str(step)
        try:
            expected = json.loads((directory / DIGEST).read_text())
            for name, digest in expected.items():
                if _digest(directory / name) != digest:
                    return f"{name} is not as it was written"
        except FileNotFoundError as error:
            return f"{epath.Path(error.filename).name} is missing"
        except (OSError, ValueError) as error:
            return f"{DIGEST} cannot be read ({error})"
        return None

    def move_aside(self, step: int, fault: str) -> None:
        """Renames a damaged checkpoint to `<step>.damaged`, so that its step can be saved again."""
        target = self.directory / f"{step}.damaged"
        if target.exists():
            target.rmtree()
        (self.directory / str(step)).rename(target)
        self._say(f"checkpoint {step} is damaged ({fault}): moved aside as {target.name}")

    def restore(self, step: int, like: Any) -> Any:
        """Reads the state of a checkpoint onto the devices.

        Args:
          step: which.
          like: a tree of `jax.ShapeDtypeStruct` or arrays, with shardings; the number of devices need not be the
            one that saved.

        Returns:
          A tree like `like`.

        Raises:
          UserError: the checkpoint holds other arrays than `like`; the message lists them.
        """
        path = self.directory / str(step)
        differences = compare_shapes(_shapes(like), _shapes(_tree(path / "state")))
        if differences:
            raise UserError(f"checkpoint {path} is of another network or optimizer: {'; '.join(differences)}")
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        return self._checkpointer.restore(
            path, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )["state"]

    def restore_variables(self, step: int, sharding: jax.sharding.Sharding) -> dict[str, Any]:
        """Reads the parameters and statistics alone, placed as `sharding` says; needs no network or optimizer."""
        path = self.directory / str(step) / "state"
        tree = _tree(path)
        wanted = {
            name: jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree[name]
            )
            for name in ("params", "batch_stats")
        }
        return ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(
            path,
            args=ocp.args.PyTreeRestore(
                item=wanted,
                partial_restore=True,
                restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            ),
        )

    def close(self) -> bool:
        """Waits for the save under way and frees the threads; returns whether the last save arrived."""
        arrived = self.wait()
        self._checkpointer.close()
        return arrived

    def is_better(self, scores: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
        """Whether `scores` beat `best` by the run's metric; NaN beats nothing."""
        return best is None or self._rank(scores) > self._rank(best)

    def _rank(self, scores: Mapping[str, float]) -> float:
        score = scores[self._best_metric]
        return -score if self._best_metric == "loss" else score

    def _seal(self) -> None:
        """Writes the digest into the finished but not yet committed directory; runs in orbax's thread."""
        unfinished = f"{self._saving}{_TEMPORARY}"
        directories = [path for path in self.directory.iterdir() if path.name.startswith(unfinished)]
        directory = directories[0] if directories else self.directory / str(self._saving)
        digests = {str(path.relative_to(directory)): _digest(path) for path in _files(directory)}
        (directory / DIGEST).write_text(json.dumps(digests, indent=1))

    def _prune(self) -> None:
        self._saving = None
        if not parallel.is_lead():
            return
        steps = self.steps()
        kept = {*steps[-self._keep :], self.best_step()}
        for step in steps:
            if step not in kept:
                (self.directory / str(step)).rmtree()

    def _report(self, error: Exception) -> None:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._say(
            f"saving checkpoint {self._saving} to {self.directory} failed ({reason}): "
            "free space or mend permissions; training goes on and saves again at the next occasion"
        )
        self._saving = None

    def _remove_unfinished(self) -> None:
        for path in self.directory.iterdir():
            if _TEMPORARY in path.name:
                path.rmtree()


def _tree(path: epath.Path) -> Any:
    """Returns the saved tree with a description of each array in its place."""
    return ocp.Checkpointer(ocp.StandardCheckpointHandler()).metadata(path).item_metadata.tree


def _files(directory: epath.Path) -> list[epath.Path]:
    """Returns the files below a directory that hold the checkpoint's content."""
    found = []
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            found += _files(path)
        elif path.name not in (DIGEST, "commit_success.txt", "_CHECKPOINT_METADATA"):
            found.append(path)
    return found


def _digest(path: epath.Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _shapes(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path): (
            f"{jax.numpy.dtype(leaf.dtype).name}[{', '.join(map(str, leaf.shape))}]"
        )
        for path, leaf in leaves
    }


def compare_shapes(expected: Mapping[str, str], found: Mapping[str, str], most: int = 5) -> list[str]:
    """Returns a clause for each array that differs in name, type or shape, the first `most` of them."""
    clauses = []
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            clauses.append(f"{name} is {found.get(name, 'absent')}, expected {expected.get(name, 'none')}")
    return clauses[:most] + ([f"and {len(clauses) - most} more"] if len(clauses) > most else [])
