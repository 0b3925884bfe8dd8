"""The record of a run: `metrics.jsonl` and TensorBoard event files."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

TIMES = ("images_per_sec", "data_wait", "step_ms_p50", "step_ms_p95", "device_gib")
"""The entries of a line that differ between two runs of the same recipe."""


class Logbook:
    """Writes one JSON object a line, and the same numbers for TensorBoard.

    Args:
      workdir: where `metrics.jsonl` and the event files go.
      step: the step that the run goes on from; lines of later steps are dropped, as are evaluations of this step
        that no checkpoint knows of.
      scored: whether the checkpoint of `step` holds its evaluation.
      silent: write nothing; for all processes but one.
    """

    def __init__(self, workdir: epath.PathLike, *, step: int = 0, scored: bool = True, silent: bool = False):
        self._path = epath.Path(workdir) / "metrics.jsonl"
        self._silent = silent
        self._board = None
        self._lines: list[str] = []
        if silent:
            return
        self._local = "://" not in str(workdir)
        self._lines = [line for line in _whole_lines(self._path) if _is_kept(json.loads(line), step, scored)]
        self._rewrite()
        if self._local:
            # Imported here since it imports PyTorch where that is installed, which takes a second.
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(workdir), purge_step=step + 1, flush_secs=30)

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a line; `record` has at least "step" and "split"."""
        if self._silent:
            return
        line = json.dumps(dict(record))
        if self._local:
            with self._path.open("a") as file:
                file.write(line + "\n")
        else:  # object stores cannot append
            self._lines.append(line)
            self._rewrite()
        if self._board is not None:
            for name, value in record.items():
                if name not in ("step", "split", "epoch"):
                    self._board.add_scalar(f"{record['split']}/{name}", value, record["step"])

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

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


def _is_kept(record: Mapping[str, Any], step: int, scored: bool) -> bool:
    return record["step"] < step or (record["step"] == step and (scored or record["split"] == "train"))


def read(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the records of a run's `metrics.jsonl`, in order."""
    return [json.loads(line) for line in _whole_lines(epath.Path(workdir) / "metrics.jsonl")]
