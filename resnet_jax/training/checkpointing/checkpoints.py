"""Checkpoints on disk: saved behind the training, sealed by a digest, the newest and the best
kept.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from resnet_jax.distributed.consensus import lead_says
from resnet_jax.distributed.mesh import is_lead
from resnet_jax.errors import UserError
from resnet_jax.fields import Field
from resnet_jax.training.checkpointing import checkpoint_io, checksums

FIELDS = {
    "every_epochs": Field(1.0, "epochs between checkpoints, may be a fraction", above=0),
    "every_minutes": Field(
        None, "minutes between checkpoints, beside every_epochs", type=float, above=0
    ),
    "keep": Field(3, "how many of the latest are kept, beside the best", at_least=2),
    "best_metric": Field(
        "top1", "what makes a checkpoint the best", choices=("top1", "top5", "loss")
    ),
}

_TEMPORARY = ".orbax-checkpoint-tmp"
_REPLACED = ".replaced"
# Orbax writes arrays, notes and metadata side by side, and each may fail on its own.
_MOST_ERRORS = 10


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

    A save runs behind the training. Before orbax commits it by a rename, the SHA-256 of every file
    goes into `digest.json`, so a committed checkpoint can be told from a damaged one. Old ones are
    removed only after a newer one is committed: the latest `keep` stay, and the best.

    The state is the same on every device, so process 0 alone writes: no save waits for another
    process, and one that fails holds nobody up. Every process reads for itself.

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
        self._arrived = True
        self._writer: ocp.AsyncCheckpointer | None = None

    def steps(self) -> list[int]:
        """Returns the steps of all committed checkpoints, in rising order."""
        if not self.directory.exists():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def best_step(self) -> int | None:
        """Returns the step of the best scored checkpoint (the first of equals), or None."""
        ranked = []
        for step in self.steps():
            try:
                scores = self.notes(step).scores
            except (OSError, ValueError, KeyError):
                continue  # damaged, and no reason to stop while another is sound
            if scores:
                ranked.append((self._rank(scores), -step))
        return -max(ranked)[1] if ranked else None

    def notes(self, step: int) -> Notes:
        """Reads what was noted beside the state of a checkpoint."""
        saved = json.loads((self.directory / str(step) / "notes" / "metadata").read_text())
        return Notes(step, saved["scores"], saved["meters"])

    def save(self, state: Any, notes: Notes) -> None:
        """Starts saving; returns once the state is copied to the host, so that it may then be
        donated.

        A save that fails is reported through `say`, here or in `poll`, and leaves the older ones
        alone.
        """
        if not is_lead():
            return
        self._finish()
        self._saving = notes.step
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished()
            if notes.step in self.steps():
                self._path(notes.step).rename(self.directory / f"{notes.step}{_REPLACED}")
            self._open_writer().save(
                self._path(notes.step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(checkpoint_io.host_copy(state)),
                    notes=ocp.args.JsonSave(
                        {"scores": dict(notes.scores), "meters": dict(notes.meters)}
                    ),
                ),
            )
        except Exception as error:
            self._report(error)

    def poll(self) -> None:
        """Notices a save that has ended, well or badly; returns at once."""
        if self._saving is None:
            return
        try:
            self._writer.check_for_errors()
        except Exception as error:
            self._report(error)
            return
        if (self._path(self._saving) / "commit_success.txt").exists():
            self._settle()

    def wait(self) -> bool:
        """Waits for the save under way; returns, in every process, whether the last one arrived."""
        self._finish()
        return bool(lead_says(int(self._arrived)))

    def newest_intact(self) -> int | None:
        """Returns the newest checkpoint whose files are as they were written; damaged ones are
        moved aside.

        Raises:
          UserError: a damaged one cannot be moved aside.
        """
        newest = None
        if is_lead() and self.directory.exists():
            try:
                newest = self._pass_damaged()
                if self._recover():
                    newest = self._pass_damaged()
                if newest is not None:
                    self._discard(self.directory / f"{newest}{_REPLACED}")
            except OSError as error:
                raise UserError(
                    f"{self.directory} holds a damaged checkpoint that cannot be moved aside "
                    f"({error.strerror or error}): make the directory writable"
                ) from error
        newest = lead_says(-1 if newest is None else newest)
        return None if newest < 0 else newest

    def fault(self, step: int) -> str | None:
        """Returns what is wrong with a checkpoint's files, or None."""
        return checksums.fault(self._path(step))

    def restore(self, step: int, like: Any) -> Any:
        """Reads the state of a checkpoint onto the devices.

        Args:
          step: which.
          like: a tree of arrays or `jax.ShapeDtypeStruct`, with shardings; the number of devices
            need not be the one that saved.

        Returns:
          A tree like `like`.

        Raises:
          UserError: the checkpoint holds other arrays than `like`; the message lists them.
        """
        return checkpoint_io.read_state(self._path(step), like)

    def restore_variables(self, step: int, sharding: jax.sharding.Sharding) -> dict[str, Any]:
        """Reads the parameters and statistics alone, placed as `sharding` says; needs no network or
        optimizer.
        """
        return checkpoint_io.read_variables(self._path(step), sharding)

    def close(self) -> None:
        """Waits for the save under way and frees the threads; no other process need come along."""
        self._finish()
        if self._writer is not None:
            self._writer.close()

    def is_better(self, scores: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
        """Whether `scores` beat `best` by the run's metric; NaN beats nothing."""
        return self._rank(scores) > (-math.inf if best is None else self._rank(best))

    def _path(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _rank(self, scores: Mapping[str, float]) -> float:
        score = scores[self._best_metric]
        if math.isnan(score):
            return -math.inf
        return -score if self._best_metric == "loss" else score

    def _open_writer(self) -> ocp.AsyncCheckpointer:
        if self._writer is None:
            logging.getLogger("absl").addFilter(_is_not_orbax)
            options = checkpoint_io.alone()
            self._writer = ocp.AsyncCheckpointer(
                ocp.CompositeCheckpointHandler(
                    composite_options=ocp.CompositeOptions(multiprocessing_options=options)
                ),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
                multiprocessing_options=options,
            )
        return self._writer

    def _seal(self) -> None:
        """Seals the finished but not yet committed directory; runs in orbax's thread."""
        unfinished = f"{self._saving}{_TEMPORARY}"
        directories = [
            path for path in self.directory.iterdir() if path.name.startswith(unfinished)
        ]
        # On a bucket orbax writes in place and commits by a file.
        checksums.seal(directories[0] if directories else self._path(self._saving))

    def _finish(self) -> None:
        """Waits for the save under way, if there is one, and reports how it ended."""
        if self._saving is None:
            return
        try:
            self._writer.wait_until_finished()
        except Exception as error:
            self._report(error)
        else:
            self._settle()

    def _settle(self) -> None:
        """Takes note that the save has arrived, and removes what it makes superfluous."""
        step, self._saving, self._arrived = self._saving, None, True
        steps = self.steps()
        kept = {*steps[-self._keep :], self.best_step()}
        try:
            for old in [
                self.directory / f"{step}{_REPLACED}",
                *(self._path(s) for s in steps if s not in kept),
            ]:
                self._discard(old)
            self._remove_unfinished()
        except OSError as error:
            self._say(
                f"old checkpoints in {self.directory} cannot be removed ({error.strerror or error})"
            )

    def _report(self, error: Exception) -> None:
        step, self._saving, self._arrived = self._saving, None, False
        self._say(
            f"saving checkpoint {step} to {self.directory} failed ({_reason(error)}): "
            "free space or mend permissions; training goes on and saves again at the next occasion"
        )
        self._discard_writer()
        try:
            self._recover()
            self._remove_unfinished()
        except OSError:
            return  # the same trouble, already told

    def _discard_writer(self) -> None:
        """Ends the writer of a failed save, which would raise what else went wrong with it at the
        next save.
        """
        writer, self._writer = self._writer, None
        for _ in range(_MOST_ERRORS):
            try:
                if writer is not None:
                    writer.wait_until_finished()
                    writer.close()
                return
            except Exception:
                continue

    def _recover(self) -> bool:
        """Brings back a checkpoint that was set aside for a successor which never came; whether
        there was one.
        """
        recovered = False
        for path in list(self.directory.iterdir()):
            if path.name.endswith(_REPLACED):
                original = self.directory / path.name.removesuffix(_REPLACED)
                if not original.exists():
                    path.rename(original)
                    recovered = True
        return recovered

    def _discard(self, path: epath.Path) -> None:
        """Gives up a checkpoint, if it is there, so that `_remove_unfinished` removes it."""
        if path.exists():
            # Renamed first: a removal that is cut short leaves no checkpoint that looks whole.
            path.rename(self.directory / f"{path.name}{_TEMPORARY}-removed")

    def _remove_unfinished(self) -> None:
        for path in list(self.directory.iterdir()):
            if _TEMPORARY in path.name:
                path.rmtree()

    def _pass_damaged(self) -> int | None:
        for step in reversed(self.steps()):
            fault = self.fault(step)
            if fault is None:
                return step
            target = self.directory / f"{step}.damaged"
            if target.exists():
                target.rmtree()
            self._path(step).rename(target)
            self._say(f"checkpoint {step} is damaged ({fault}): moved aside as {target.name}")
        return None


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Keeps the traceback of a failed save, which `Checkpoints` says in a line, out of the log."""
    return "orbax" not in record.pathname


def _reason(error: BaseException) -> str:
    """Returns the line of an error that says most: that of the failing system call, where there is
    one.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__
