"""The record of a run: `metrics.jsonl` and TensorBoard event files."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from resnet_jax.training.reporting.tensorboard import Board

TIMES = ("images_per_sec", "data_wait", "step_ms_p50", "step_ms_p95", "device_gib")
"""The entries of a line that differ between two runs of the same recipe."""


class Logbook:
    """Writes one JSON object a line, and the same numbers for TensorBoard.

    A disk that is full costs no line: what cannot be written is said once, kept, and written with a
      later line.

    Args:
      workdir: where `metrics.jsonl` and the event files go.
      step: the step that the run goes on from; lines of later steps are dropped, as are evaluations
        of this step that no checkpoint knows of.
      scored: whether the checkpoint of `step` holds its evaluation.
      silent: write nothing; for all processes but one.
      say: called with a line when something cannot be written.
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
        self._lines = [line for line in _whole_lines(self._path) if _is_kept(line, step, scored)]
        self._write(self._rewrite)
        if self._local:
            self._board = self._chart(lambda: Board(str(workdir), step + 1))

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a line; `record` has at least "step" and "split"."""
        if self._silent:
            return
        self._lines.append(json.dumps(dict(record)))
        # Object stores cannot append, and a full disk may have taken half a line.
        self._write(self._append if self._local and not self._behind else self._rewrite)
        if self._board is not None:
            self._chart(lambda: self._board.write(record))

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

    def _append(self) -> None:
        with self._path.open("a") as file:
            file.write(self._lines[-1] + "\n")

    def _rewrite(self) -> None:
        temporary = self._path.with_name(self._path.name + ".new") if self._local else self._path
        temporary.write_text("".join(line + "\n" for line in self._lines))
        if self._local:
            temporary.replace(self._path)


def _whole_lines(path: epath.Path) -> list[str]:
    """Returns a log's lines, without a last one that a killed process left half written."""
    if not path.exists():
        return []
    return path.read_text().split("\n")[:-1]


def _is_kept(line: str, step: int, scored: bool) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return record["step"] < step or (
        record["step"] == step and (scored or record["split"] == "train")
    )


def read(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the records of a run's `metrics.jsonl`, in order."""
    return [json.loads(line) for line in _whole_lines(epath.Path(workdir) / "metrics.jsonl")]
