"""Runs `launch.py` and signals it at a named point: `python kill_at.py POINT SIGNAL flags...`.

POINT is "compiling", "step=N" (step N is about to be started), "evaluation=N" (that of step N has
begun) or "checkpoint=N" (all bytes of checkpoint N are written, and it is not committed yet).
SIGNAL may be several names joined by "+".
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from resnet_jax.__main__ import main
from resnet_jax.distributed.signals import Signals
from resnet_jax.training.checkpointing import checksums
from resnet_jax.training.reporting.reporter import Reporter

# Point -> whose method passes it, and the step of a call.
PLACES = {
    "compiling": (Signals, "patiently", lambda self, work: None),
    "step": (Reporter, "before_step", lambda self, number: number + 1),
    "evaluation": (Reporter, "evaluating", lambda self, progress, split: progress.step),
    "checkpoint": (
        checksums,
        "write_checksums",
        lambda directory, leave_out: int(directory.name.partition(".")[0]),
    ),
}


def arm(point: str, names: str) -> None:
    name, _, step = point.partition("=")
    owner, method, step_of = PLACES[name]
    original = getattr(owner, method)

    def passed(*arguments, **keywords):
        if step_of(*arguments, **keywords) == (int(step) if step else None):
            setattr(owner, method, original)
            for name in names.split("+"):
                os.kill(os.getpid(), getattr(signal, name))
        return original(*arguments, **keywords)

    setattr(owner, method, passed)


if __name__ == "__main__":
    arm(sys.argv[1], sys.argv[2])
    sys.exit(main([sys.argv[0], *sys.argv[3:]]))
