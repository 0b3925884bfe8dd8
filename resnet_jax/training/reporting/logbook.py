"""The record of a run: `metrics.jsonl` and TensorBoard event files."""

import itertools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from resnet_jax.errors import UserError
from resnet_jax.training.reporting.tensorboard import Board

TIMES = ("images_per_sec", "data_wait", "step_ms_p50", "step_ms_p95", "device_gib")
"""The entries of a line that differ between two runs of the same recipe."""


class Logbook:
    """Writes one JSON object a line, and the same numbers for TensorBoard.

    A disk that is full costs no line: what cannot be written is said once, kept, and written with a
    later line. A number that is none (NaN, infinity) is null in the file, which JSON has no other
    word for. A run that begins sets aside the log that it finds.

    Args:
      workdir: where `metrics.jsonl` and the event files go.
      step: the step that the run goes on from; lines of later steps are dropped, as are evaluations
        of this step that no checkpoint knows of.
      scored: whether the checkpoint of `step` holds its evaluation.
      silent: write nothing; for all processes but one.
      say: called with a line when something cannot be written.

    Raises:
      UserError: there is a log that cannot be read.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        step: int = 0,
        scored: bool = True,
        silent: bool = False,
        say: Callable[[str], None] = print,
    ):
        self._path = epath.Path(workdir) / "metrics.jsonl"
        self._silent, self._say = silent, say
        self._board: Board | None = None
        self._behind = False
        self._lines: list[str] = []
        if silent:
            return
        self._local = "://" not in str(workdir)
        found = _whole_lines(self._path)
        self._lines = [line for line in found if _is_kept(line, step, scored)]
        if found and step == 0:
            self._write(self._set_aside)
        self._write(self._rewrite)
        if self._local:
            self._board = self._chart(lambda: Board(str(workdir), step + 1))

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a line; `record` has at least "step" and "split"."""
        if self._silent:
            return
        self._lines.append(to_json(record))
        # Object stores cannot append, and a full disk may have taken half a line.
        self._write(self._append if self._local and not self._behind else self._rewrite)
        board = self._board
        if board is not None:
            self._chart(lambda: board.write(record))

    def close(self) -> None:
        """Writes what could not be written before, if it can be now."""
        if self._silent:
            return
        if self._behind:
            self._write(self._rewrite)
        if self._board is not None:
            self._chart(self._board.close)

    def _chart(self, work: Callable[[], Any]) -> Any:
        """Does something with TensorBoard's file, which is given up for good when that fails."""
        try:
            return work()
        except OSError as error:
            self._say(
                f"TensorBoard's file in {self._path.parent} cannot be written"
                f" ({error.strerror or error}): from here on {self._path.name} alone has the log"
            )
            self._board = None

    def _write(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            if not self._behind:
                self._say(
                    f"{self._path} cannot be written ({error.strerror or error}): its lines are"
                    " kept for later"
                )
            self._behind = True
        else:
            self._behind = self._behind and work != self._rewrite

    def _set_aside(self) -> None:
        taken = {path.name for path in self._path.parent.iterdir()}
        number = next(n for n in itertools.count(1) if f"metrics.{n}.jsonl" not in taken)
        old = self._path.with_name(f"metrics.{number}.jsonl")
        self._path.rename(old)
        self._say(f"{self._path.name} is of a run without checkpoints: set aside as {old.name}")

    def _append(self) -> None:
        with self._path.open("a") as file:
            file.write(self._lines[-1] + "\n")

    def _rewrite(self) -> None:
        temporary = self._path.with_name(self._path.name + ".new") if self._local else self._path
        temporary.write_text("".join(line + "\n" for line in self._lines))
        if self._local:
            temporary.replace(self._path)


def to_json(record: Mapping[str, Any]) -> str:
    """Returns a record as one line of JSON, with null for each number that is none."""
    return json.dumps(
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        },
        allow_nan=False,
    )


def _whole_lines(path: epath.Path) -> list[str]:
    """Returns a log's lines, without a last one that a killed process left half written."""
    try:
        return path.read_bytes().decode(errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): make it readable, or move it away"
        ) from error


def _record(line: str) -> dict[str, Any] | None:
    """Reads a line, None where it is not one of a log."""
    try:
        record = json.loads(line)
        is_ours = isinstance(record["step"], int) and isinstance(record["split"], str)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return record if is_ours else None


def is_training(record: Mapping[str, Any]) -> bool:
    """Whether a record tells of training steps; an evaluation may be of a split named "train"."""
    return "step_ms_p50" in record


def _is_kept(line: str, step: int, scored: bool) -> bool:
    record = _record(line)
    return record is not None and (
        record["step"] < step or (record["step"] == step and (scored or is_training(record)))
    )


def read(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the records of a run's `metrics.jsonl`, in order, with NaN for null."""
    lines = _whole_lines(epath.Path(workdir) / "metrics.jsonl")
    records = [record for line in lines if (record := _record(line)) is not None]
    return [
        {name: math.nan if value is None else value for name, value in record.items()}
        for record in records
    ]
