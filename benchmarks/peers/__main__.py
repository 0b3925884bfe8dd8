"""A training contestant in a process of its own, which takes its turns when told to.

The argument is a JSON object with "peer" (a module of this package), "options" of its `make_step`
and "problem", a `train_step.Problem`. Answers and requests are JSON lines, see `harness.Worker`.
"""

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

from benchmarks import step_profile
from benchmarks.harness import draw, seconds_of, turn
from resnet_jax.distributed.runtime import keep_freed_memory

WARM_STEPS = 3


class Contestant:
    """What a contestant does with requests; `ready` is its first answer."""

    def __init__(self, peer: str, options: dict[str, Any], problem: dict[str, Any]):
        self._on_gpu = problem.pop("device") == "gpu"
        if options.pop("keep_memory", peer == "ours") and not self._on_gpu:
            keep_freed_memory()  # as training on the CPU does
        make_step = importlib.import_module(f"benchmarks.peers.{peer}").make_step
        self._cuda = sys.modules["torch"].cuda if peer == "pytorch" else None
        name, dtype, classes = problem.pop("network"), problem.pop("dtype"), problem["num_classes"]

        def first_step() -> None:
            self._step = make_step(name, *draw(**problem), classes, dtype, **options)
            float(self._step())

        self.ready = {"first_step": seconds_of(first_step), "device": "cpu"}
        turn(self._step, WARM_STEPS)
        self.ready["step"] = turn(self._step, WARM_STEPS)
        if self._on_gpu:
            kind = self._cuda.get_device_name() if self._cuda else jax.devices()[0].device_kind
            self.ready["device"] = kind

    def turn(self, steps: int) -> dict[str, Any]:
        """Takes some steps in a row."""
        return {"step": turn(self._step, steps)}

    def finish(self, profiled: int) -> dict[str, Any]:
        """Returns the most bytes held on a GPU, and where the time of `profiled` steps goes."""
        if self._cuda:
            return {"peak": self._cuda.max_memory_allocated() if self._on_gpu else None}
        answer = {"peak": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")}
        if profiled:
            with tempfile.TemporaryDirectory() as folder:
                with jax.profiler.trace(folder):
                    turn(self._step, profiled)
                program = self._step.compiled.as_text()
                answer["profile"] = step_profile.read(Path(folder), program, profiled)
        return answer


def main() -> None:
    # Libraries print to the standard output: it becomes the standard error's, and answers go where
    # it went before.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        served = Contestant(**json.loads(sys.argv[1]))
        print(json.dumps(served.ready), file=answers)
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(getattr(served, request.pop("verb"))(**request)), file=answers)
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        print(json.dumps({"error": words[:200]}), file=answers)
        raise


if __name__ == "__main__":
    main()
