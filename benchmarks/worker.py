"""A contestant in a process of its own, which takes its turns when told to.

JAX and PyTorch cannot share a GPU within a process without one holding what the other needs, XLA's
flags hold for a whole process, and a crash must not take the others along. So each contestant lives
in a process, waits idle on a pipe while the others take their turns, and answers each request, a
JSON object on a line, with another.
"""

import contextlib
import importlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contest import Failure, draw, turn, versions

ROOT = Path(__file__).resolve().parents[1]
WARM_STEPS = 3
TIMED_STEPS = 3
# Seconds that a process has to end by itself once its pipe is closed.
GRACE = 5.0


class Problem(NamedTuple):
    """What is trained: a network, batches of random images [batch, side, side, 3], in a dtype on a
    device.
    """

    network: str
    batch: int
    side: int = 224
    dtype: str = "bfloat16"
    device: str = "gpu"
    num_classes: int = 1000


class Contestant(NamedTuple):
    """Who trains.

    Attributes:
      module: with the function `make_step`, see `contest`.
      options: of `make_step`, beside `dtype`.
      xla_flags: added to the environment's XLA_FLAGS.
      note: what it is, in a few words.
    """

    module: str
    options: Mapping[str, Any] = {}
    xla_flags: str = ""
    note: str = ""

    @property
    def is_torch(self) -> bool:
        return self.module == "benchmarks.torch_compiled"


class Worker:
    """A contestant's process, as its contest sees it.

    Attributes:
      ready: its first answer: "device", "versions", "first_step_seconds", "loss", "step_seconds".

    Raises:
      Failure: it did not get as far as its first steps within `seconds`.
    """

    def __init__(self, contestant: Contestant, problem: Problem, seconds: float):
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (`close` closes it)
        request = {"module": contestant.module, "options": options(contestant, problem)}
        request["problem"] = problem._asdict()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(request)],
            cwd=ROOT,
            env=environment(contestant, problem),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self.ready = self._answer(seconds)
        self._step_seconds = self.ready["step_seconds"]

    def turn(self, seconds: float, limit: float) -> float:
        """Takes as many steps as fit into `seconds`, at least one, and returns the seconds of one.

        Raises:
          Failure: it failed, or did not answer within `limit` seconds.
        """
        steps = max(1, round(seconds / self._step_seconds))
        return self.ask({"verb": "turn", "steps": steps}, limit)["step_seconds"]

    def ask(self, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
        """Sends a request and returns the answer.

        Raises:
          Failure: it failed, or did not answer within `limit` seconds.
        """
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass  # It is gone; the answer says why.
        return self._answer(limit)

    def close(self) -> None:
        """Ends the process and with it what it holds on the device."""
        for file in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                file.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self, seconds: float) -> dict[str, Any]:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if waiting.select(max(seconds, 0)) else None
        answer = json.loads(line) if line else {}
        if "error" in answer or not answer:
            error = answer.get("error") or (
                f"no answer within {max(seconds, 0):.0f} s" if line is None else self._last_words()
            )
            self.close()
            raise Failure(error)
        return answer

    def _last_words(self) -> str:
        """Why a process ended without an answer: its exit status and the last line that looks like
        a reason.
        """
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        telling = [line for line in lines if "rror" in line or line.startswith("F")] or lines[-1:]
        return f"exit status {status}: {one_line(' '.join(telling[-1:]))}"


def options(contestant: Contestant, problem: Problem) -> dict[str, Any]:
    """The keyword arguments of a contestant's `make_step`."""
    device = {"device": "cuda" if problem.device == "gpu" else "cpu"} if contestant.is_torch else {}
    return {"dtype": problem.dtype, **device, **contestant.options}


def environment(contestant: Contestant, problem: Problem) -> dict[str, str]:
    """The environment of a contestant's process.

    JAX takes memory as it needs it, since the others have to live beside it, and only the platform
    asked for, so that a GPU that cannot be used is an error and not a slow run on the CPU.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} {contestant.xla_flags}".strip()
    platform = "cuda" if problem.device == "gpu" and not contestant.is_torch else "cpu"
    return {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": platform,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def one_line(text: str, longest: int = 200) -> str:
    """A message on one line, shortened."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def is_out_of_memory(message: str) -> bool:
    """Whether an error says that the device's memory did not suffice."""
    return any(
        sign in message.lower() for sign in ("resource_exhausted", "out of memory", "outofmemory")
    )


class Served:
    """A contestant within its own process: what it does with requests."""

    def __init__(self, request: Mapping[str, Any]):
        problem = Problem(**request["problem"])
        batch = draw(problem.batch, problem.side, 3, problem.num_classes)
        self._torch = request["module"] == "benchmarks.torch_compiled"
        make_step = importlib.import_module(request["module"]).make_step
        began = time.perf_counter()
        self._step = make_step(problem.network, *batch, problem.num_classes, **request["options"])
        loss = float(self._step())
        first = time.perf_counter() - began
        turn(self._step, WARM_STEPS)
        self.ready = {
            "first_step_seconds": first,
            "loss": loss,
            "step_seconds": turn(self._step, TIMED_STEPS),
            "device": self._device(problem),
            "versions": versions("jax", "jaxlib", "flax", "torch", "torchvision"),
        }

    def _device(self, problem: Problem) -> str:
        if problem.device == "cpu":
            return "cpu"
        if self._torch:
            import torch

            return torch.cuda.get_device_name()
        import jax

        return jax.devices()[0].device_kind

    def turn(self, steps: int) -> dict[str, Any]:
        """Some steps in a row, after one to wake the device up."""
        turn(self._step, 1)
        return {"step_seconds": turn(self._step, steps)}

    def memory(self) -> dict[str, Any]:
        """The most bytes that this process's arrays have held on the device, compilation
        included.
        """
        if self._torch:
            import torch

            return {
                "peak_bytes": (
                    torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
                )
            }
        import jax

        return {"peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")}

    def profile(self, steps: int) -> dict[str, Any]:
        """Where the device time of some steps goes; for this project's own step."""
        import jax

        from benchmarks import gpu_profile

        program = self._step.compiled.as_text()
        module = program.split(maxsplit=2)[1].rstrip(",")
        with tempfile.TemporaryDirectory() as directory:
            with jax.profiler.trace(directory):
                turn(self._step, steps)
            events = gpu_profile.read_trace(Path(directory), module)
        return gpu_profile.break_down(events, gpu_profile.read_program(program), steps)._asdict()


def main() -> None:
    """Serves the contestant that the first argument describes until the pipe closes."""
    # Libraries print to the standard output: it becomes the standard error's, and answers go where
    # it went before.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        served = Served(json.loads(sys.argv[1]))
        print(json.dumps(served.ready), file=answers)
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(served, request.pop("verb"))(**request)
            print(json.dumps(answer), file=answers)
    except Exception as error:
        print(json.dumps({"error": one_line(f"{type(error).__name__}: {error}")}), file=answers)
        raise


if __name__ == "__main__":
    main()
