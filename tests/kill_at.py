"""Runs `launch.py` and strikes it with a signal at a chosen moment: `python kill_at.py MOMENT
NUMBER SIGNAL flags...`.

MOMENT is "compile", "step", "evaluate" or "seal" (between the last byte of a checkpoint and its
commit); the signal comes with the NUMBER-th such moment, counted from 1. SIGNAL may be several
names joined by "+".
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import launch
from resnet_jax.commands import train
from resnet_jax.distributed import signals
from resnet_jax.training import evaluation
from resnet_jax.training.checkpointing import checksums

PLACES = {
    "compile": (signals.Signals, "patiently"),
    "step": (signals.Requests, "array"),
    "evaluate": (evaluation, "evaluate"),
    "seal": (checksums, "seal"),
}


def arm(moment: str, number: int, names: str) -> None:
    owner, function = PLACES[moment]
    original, seen = getattr(owner, function), 0

    def struck(*arguments, **keywords):
        nonlocal seen
        seen += 1
        if seen == number:
            for name in names.split("+"):
                os.kill(os.getpid(), getattr(signal, name))
        return original(*arguments, **keywords)

    setattr(owner, function, struck)
    if moment == "evaluate":  # the loop holds the function by name
        sys.modules["resnet_jax.training.loop"].evaluate = struck


if __name__ == "__main__":
    assert train
    arm(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    sys.exit(launch.main([sys.argv[0], *sys.argv[4:]]))
