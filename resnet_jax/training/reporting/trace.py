"""A trace of some steps, for TensorBoard, Perfetto or XProf."""

import jax
from etils import epath

from resnet_jax.errors import UserError


def parse(text: str) -> range:
    """Reads "start:stop": the steps to trace, counted from 0, without `stop`.

    Raises:
      UserError: it is not two rising whole numbers.
    """
    start, colon, stop = text.partition(":")
    if not (colon and start.isdigit() and stop.isdigit() and int(start) < int(stop)):
        raise UserError(
            f"--profile={text}: must be start:stop, two rising step numbers, for example 10:20"
        )
    return range(int(start), int(stop))


class Trace:
    """Records the steps of a range into `workdir/profile`; does nothing for an empty range.

    Args:
      workdir: of the run, a local directory.
      steps: which; the same in every process, since all of them pause after the last.
      silent: record nothing; for all processes but one.
    """

    def __init__(self, workdir: epath.PathLike, steps: range = range(0), silent: bool = False):
        self.directory = epath.Path(workdir) / "profile"
        self.running = False
        self._steps = steps
        self._silent = silent

    def before(self, step: int) -> None:
        """Starts the trace where `step`, about to be taken, is the first of the range."""
        if not self.running and step in self._steps:
            self.running = True
            if not self._silent:
                jax.profiler.start_trace(str(self.directory))

    def is_over(self, step: int) -> bool:
        """Whether the trace runs and `step`, just taken, is the last of the range."""
        return self.running and step + 1 >= self._steps.stop

    def stop(self) -> None:
        """Writes the trace; the steps in it must be done."""
        if self.running:
            self.running = False
            if not self._silent:
                jax.profiler.stop_trace()
