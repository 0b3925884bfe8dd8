"""Checkpoints on disk: saved behind the training, with checksums, the newest and the best kept.

Orbax writes the arrays. Which checkpoints there are is decided here and not by
`ocp.CheckpointManager`, which was tried in its place (orbax 0.12.8). Kills cost it nothing, but two
promises fell:

- An old checkpoint goes only after a newer one is committed. The manager chooses what to remove
  when a save begins; `check_for_errors`, by which a loop learns early of a failed save, takes the
  error away from the thread that would then not have removed it.
- A save that arrived counts as one. The manager reports an old checkpoint that it cannot remove,
  or that a kill has left half removed, as a failure of the save.

It also keeps the steps in memory, to be read again before each save, refuses to save a step again,
and needs the same private names of orbax, which are all in `checkpoint_io`.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from resnet_jax.distributed.consensus import lead_says
from resnet_jax.distributed.lock import LockLost
from resnet_jax.distributed.mesh import is_lead
from resnet_jax.errors import UserError
from resnet_jax.fields import Field
from resnet_jax.training.checkpointing import checkpoint_io, checksums
from resnet_jax.training.checkpointing.checkpoint_io import Notes, rank

FIELDS = {
    "every_epochs": Field(1.0, "epochs between checkpoints, may be a fraction", above=0),
    "every_minutes": Field(
        None, "minutes between checkpoints, beside every_epochs", type=float, above=0
    ),
    # One alone would leave nothing where it is damaged.
    "keep": Field(3, "how many of the latest are kept, beside the best", at_least=2),
    "best_metric": Field(
        "top1", "what makes a checkpoint the best", choices=("top1", "top5", "loss")
    ),
}

# Suffix of a checkpoint whose step is being saved again, until the new one is committed.
_REPLACED = ".replaced"
# What reading notes raises where the file is there and holds something else.
_OF_DAMAGED_NOTES = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


class Checkpoints:
    """The checkpoints of one run, each in `directory/<step>/`.

    The state is the same on every device, so process 0 alone writes: no save waits for another
    process, and one that fails holds nobody up. Every process reads for itself.

    Args:
      directory: where the checkpoints are.
      keep: how many of the latest stay.
      best_metric: "top1" or "top5" (larger is better) or "loss" (smaller is better).
      say: called with a line when something goes wrong but training can go on.
      check_owner: raises `LockLost` where the directory is another run's by now; called before
        anything is written for good.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep: int = 3,
        best_metric: str = "top1",
        say: Callable[[str], None] = print,
        check_owner: Callable[[], None] = lambda: None,
    ):
        self.directory = epath.Path(directory)
        self._keep = keep
        self._best_metric = best_metric
        self._say = say
        self._check_owner = check_owner
        self._saving: int | None = None
        self._arrived = True
        self._writer: ocp.AsyncCheckpointer | None = None

    def steps(self) -> list[int]:
        """Returns the steps of all committed checkpoints, in rising order.

        Raises:
          UserError: the directory is there and cannot be read.
        """
        try:
            names = self._names()
        except OSError as error:
            raise checksums.unreadable(self.directory, error) from error
        return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))

    def best_step(self) -> int | None:
        """Returns the step of the checkpoint with the best scores, None if none has scores.

        Of equals in the metric it is the one of the lower loss, then the later one.

        Raises:
          UserError: a checkpoint cannot be read, and may be the best.
        """
        ranked = []
        for step in self.steps():
            try:
                scores = self.notes(step).scores
                if scores:
                    ranked.append((rank(scores, self._best_metric), step))
            except (*checksums.ABSENT, *_OF_DAMAGED_NOTES):
                continue  # One that is damaged does not keep the others from being used.
        return max(ranked)[1] if ranked else None

    def notes(self, step: int) -> Notes:
        """Reads what was noted beside the state of a checkpoint.

        Raises:
          UserError: it is there and cannot be read.
        """
        return checkpoint_io.read_notes(self._path(step), step)

    def save(self, state: Any, notes: Notes) -> None:
        """Starts saving; returns when the state is copied to the host and may be donated.

        A save that fails is reported through `say`, here or in `poll`, and costs no older one.

        Raises:
          LockLost: the directory is another run's; here, in `poll`, `wait` or `close`.
        """
        if not is_lead():
            return
        # How the save before ended is said before this one takes its place.
        self._finish()
        self._check_owner()
        self._saving = notes.step
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished()
            # Orbax refuses a step that is there. It is set aside only: it may be the last one.
            if str(notes.step) in self._names():
                self._path(notes.step).rename(self.directory / f"{notes.step}{_REPLACED}")
            writer = self._writer or checkpoint_io.open_writer(self._before_commit)
            self._writer = writer
            beside = {"scores": dict(notes.scores), "meters": dict(notes.meters)}
            writer.save(
                self._path(notes.step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(checkpoint_io.host_copy(state)),
                    notes=ocp.args.JsonSave(beside),
                ),
            )
        except Exception as error:
            self._report(error)

    def poll(self) -> None:
        """Notices a save that has ended, well or badly; returns at once."""
        if self._saving is None or self._writer is None:
            return
        # No thread is waited for, so that the loop can ask after every step.
        try:
            self._writer.check_for_errors()
        except Exception as error:
            self._report(error)
            return
        if (self._path(self._saving) / checkpoint_io.COMMITTED).exists():
            self._settle()

    def wait(self) -> bool:
        """Waits for the save under way; returns, in every process, whether the last one arrived."""
        self._finish()
        return bool(lead_says(int(self._arrived)))

    def newest_intact(self) -> int | None:
        """Returns the newest undamaged step, None if there is none; moves damaged ones aside.

        Raises:
          UserError: a checkpoint cannot be read, or a damaged one cannot be moved.
        """
        # One process looks and tells the others: a shared disk may not show all the same yet.
        newest = None
        if is_lead():
            try:
                newest = self._move_damaged()
                if self._recover():
                    newest = self._move_damaged()
                if newest is not None:
                    self._discard(self.directory / f"{newest}{_REPLACED}")
            except OSError as error:
                raise UserError(
                    f"a damaged checkpoint in {self.directory} cannot be moved aside "
                    f"({error.strerror or error}): make the directory writable"
                ) from error
        # Processes agree on whole numbers.
        newest = lead_says(-1 if newest is None else newest)
        return None if newest < 0 else newest

    def find_damage(self, step: int) -> str | None:
        """Returns what is wrong with a checkpoint's files, or None; see `checksums`."""
        return checksums.find_damage(self._path(step))

    def checksums(self, step: int) -> str:
        """Returns the checksums of a checkpoint as they were written, "" where there are none."""
        try:
            return (self._path(step) / checksums.FILE).read_text()
        except (OSError, ValueError):
            return ""

    def restore(self, step: int, like: Any) -> Any:
        """Reads a state onto any number of devices, see `checkpoint_io.read_state`."""
        return checkpoint_io.read_state(self._path(step), like)

    def restore_variables(self, step: int, sharding: jax.sharding.Sharding) -> dict[str, Any]:
        """Reads the parameters and statistics alone, see `checkpoint_io.read_variables`."""
        return checkpoint_io.read_variables(self._path(step), sharding)

    def close(self) -> None:
        """Waits for the save under way and ends the threads; needs no other process."""
        self._finish()
        if self._writer is not None:
            self._writer.close()

    def is_better(self, scores: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
        """Whether later `scores` are at least as good as `best`; NaN is never the best."""
        metric = self._best_metric
        if math.isnan(scores[metric]):
            return False
        return best is None or rank(scores, metric) >= rank(best, metric)

    def _path(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _names(self) -> set[str]:
        try:
            return {path.name for path in self.directory.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def _before_commit(self) -> None:
        """Adds the checksums to a complete directory, in orbax's thread, before its last rename."""
        self._check_owner()
        unfinished = f"{self._saving}{checkpoint_io.TEMPORARY}"
        temporary = [name for name in self._names() if name.startswith(unfinished)]
        # On a bucket orbax writes in place and commits by a file.
        directory = self.directory / (temporary[0] if temporary else str(self._saving))
        checksums.write_checksums(directory, leave_out=checkpoint_io.WRITTEN_LATE)

    def _finish(self) -> None:
        """Waits for the save under way, if there is one, and reports how it ended."""
        if self._saving is None or self._writer is None:
            return
        try:
            self._writer.wait_until_finished()
        except Exception as error:
            self._report(error)
        else:
            self._settle()

    def _settle(self) -> None:
        """Records that the save has arrived, and removes the checkpoints that it makes needless."""
        step, self._saving, self._arrived = self._saving, None, True
        try:
            # Only now, with a newer one on disk, may an older one go.
            steps = self.steps()
            needed = {*steps[-self._keep :], self.best_step()}
            self._discard(self.directory / f"{step}{_REPLACED}")
            for old in steps:
                if old not in needed:
                    self._discard(self._path(old))
            self._remove_unfinished()
        except (OSError, UserError) as error:
            why = checkpoint_io.reason(error)
            self._say(f"old checkpoints in {self.directory} cannot be removed ({why})")

    def _report(self, error: Exception) -> None:
        if isinstance(error, LockLost):
            self._saving, self._arrived = None, False
            raise error
        step, self._saving, self._arrived = self._saving, None, False
        self._say(
            f"saving checkpoint {step} to {self.directory} failed ({checkpoint_io.reason(error)}): "
            "free space or correct the permissions; training goes on, and saves again later"
        )
        # A writer that has failed would raise the same error at the next save.
        if self._writer is not None:
            checkpoint_io.discard_writer(self._writer)
            self._writer = None
        try:
            self._recover()
            self._remove_unfinished()
        except OSError:
            return  # The cause is that of the failed save, which was said.

    def _recover(self) -> bool:
        """Brings back what was set aside for a successor that never came, and says whether any."""
        names = self._names()
        replaced = [name.removesuffix(_REPLACED) for name in names if name.endswith(_REPLACED)]
        lost = [name for name in replaced if name not in names]
        for name in lost:
            (self.directory / f"{name}{_REPLACED}").rename(self.directory / name)
        return bool(lost)

    def _discard(self, path: epath.Path) -> None:
        if path.exists():
            # A removal that is cut short must not leave a checkpoint that looks whole.
            path.rename(self.directory / f"{path.name}{checkpoint_io.TEMPORARY}-removed")

    def _remove_unfinished(self) -> None:
        for name in self._names():
            if checkpoint_io.TEMPORARY in name:
                (self.directory / name).rmtree()

    def _move_damaged(self) -> int | None:
        for step in reversed(self.steps()):
            damage = self.find_damage(step)
            if damage is None:
                return step
            # Kept for a person to look at; its name counts as no step.
            target = self.directory / f"{step}.damaged"
            if target.exists():
                target.rmtree()
            self._path(step).rename(target)
            self._say(f"checkpoint {step} is damaged ({damage}): moved aside as {target.name}")
        return None
