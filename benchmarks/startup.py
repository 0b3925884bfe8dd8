"""The way to a run's first step, what the loop adds to a step, and what a checkpoint costs.

python -m benchmarks.startup --output=results
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks import pages
from benchmarks.harness import ROOT, Range, Rounds, alternate, load_recipe, ratio, seconds_of
from resnet_jax.commands.train import train
from resnet_jax.config import set_field
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.experiment import Experiment
from resnet_jax.training.reporting import logbook

NEVER = 1e6  # epochs between what is not to happen before the end
START_LIMIT = 300.0  # seconds
RESNET18 = {
    "data.image_size": 28,
    "model.stem": "imagenet",
    "model.width": 64,
    "model.stage_sizes": (2, 2, 2, 2),
}
NETWORKS = {"ResNet-18, 64 of 28x28x1": RESNET18, "ResNet-8, 64 of 8x8x1": {}}
IMPORTS = {
    "import jax, flax.linen": ["-c", "import jax, flax.linen"],
    "import resnet_jax": ["-c", "import resnet_jax"],
    "python launch.py --help": ["launch.py", "--help"],
}


def start(workdir: Path, cache: Path, *flags: str) -> dict[str, float]:
    """Starts the quickstart, stops it after its first step, and returns what that took.

    Returns:
      "seconds" from the start of the process to the line of the first step in the log; "programs"
      compiled, that is, not found in the directory of compiled programs.
    """

    def programs() -> int:
        return len(list(cache.glob("*-cache")))

    def lines() -> int:
        return log.read_text().count("\n") if log.exists() else 0

    log = workdir / "metrics.jsonl"
    known, logged = programs(), lines()
    command = [sys.executable, "launch.py", "--config=configs/quickstart.py", *flags]
    command += ["--config.log_every_steps=1", f"--workdir={workdir}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    while lines() <= logged:
        if process.poll() is not None or time.perf_counter() - began > START_LIMIT:
            process.kill()
            raise RuntimeError(process.communicate()[0].decode())
        time.sleep(0.002)
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGTERM)
    process.communicate()
    return {"seconds": seconds, "programs": programs() - known}


def start_rows(rounds: int, *flags: str) -> list[pages.Row]:
    """Returns a row for each kind of start, and for the imports that every start pays."""
    with tempfile.TemporaryDirectory() as folder:
        take = partial(start, cache=Path(folder, "cache"))
        kinds = {
            kind: [take(Path(folder, name), *flags) for name in names]
            for kind, names in (
                ("with nothing compiled", ["first"]),
                ("the same run, resumed", ["first"]),
                ("another run of the recipe", [f"other{number}" for number in range(rounds)]),
            )
        }
    rows = [
        {
            "start": f"quickstart, {kind}",
            "seconds": Range.of([one["seconds"] for one in found]),
            "programs compiled": max(one["programs"] for one in found),
        }
        for kind, found in kinds.items()
    ]
    call = partial(subprocess.run, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    turns = {
        name: partial(seconds_of, partial(call, [sys.executable, *words]))
        for name, words in IMPORTS.items()
    }
    played, _ = alternate(turns, rounds)
    imports = {f"`{name}`": [each[name] for each in played] for name in IMPORTS}
    return rows + [{"start": name, "seconds": Range.of(found)} for name, found in imports.items()]


def bare_steps(experiment: Experiment) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns functions that take a step of training and of evaluation on one batch."""
    state, variables = experiment.create_state(), experiment.initial_variables()
    loaders = experiment.train_loader, experiment.eval_loader
    train_batch, eval_batch = (shard_batch(experiment.mesh, loader[0]) for loader in loaders)

    def step() -> Any:
        nonlocal state
        state, metrics = experiment.train_step(state, train_batch)
        return metrics

    return step, lambda: experiment.eval_step(variables, eval_batch)


def in_loop(config: ConfigDict, eval_steps: int) -> dict[str, float]:
    """Trains, and returns the seconds of a step of training and of evaluation, by the run's log.

    The first epoch of training, with what is done but once, does not count.
    """
    with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stdout(io.StringIO()):
        train(config, workdir)
        lines = logbook.read(workdir)
    epochs = [line for line in lines if line["split"] == "train"][1:]
    return {
        "training": sum(config.batch_size / line["images_per_sec"] for line in epochs)
        / len(epochs),
        "evaluation": lines[-1]["examples"] / lines[-1]["images_per_sec"] / eval_steps,
    }


def play(fields: dict[str, Any], rounds: int, epochs: int) -> Rounds:
    """Lets whole runs, without checkpoints and with one an epoch, and bare steps take turns.

    Args:
      fields: changes to the quickstart's recipe, whose digits lie in memory.
      rounds: how often, after one that does not count.
      epochs: of a run.

    Returns:
      Seconds a step: "training", "bare training", "evaluation", "bare evaluation"; and of a whole
      run: "plain", "saving".
    """
    config = load_recipe("quickstart")
    never = {"eval_every_epochs": NEVER, "checkpoint.every_epochs": NEVER}
    for name, value in (
        never | {"num_epochs": epochs, "data.eval_split": "train"} | fields
    ).items():
        set_field(config, name, value)
    saving = config.copy_and_resolve_references()
    saving.checkpoint.every_epochs = 1.0
    prepare_runtime(config.precision)
    experiment, played = Experiment.for_training(config), []
    step, eval_step = bare_steps(experiment)
    steps, eval_steps = experiment.plan.steps_per_epoch, len(experiment.eval_loader)

    def repeated(step: Callable[[], Any], count: int) -> float:
        return seconds_of(lambda: jax.block_until_ready([step() for _ in range(count)][-1])) / count

    for _ in range(rounds + 1):
        found = {"bare training": repeated(step, steps)}
        began = time.perf_counter()
        found |= in_loop(config, eval_steps)
        found["plain"] = time.perf_counter() - began
        found["bare evaluation"] = repeated(eval_step, eval_steps)
        found["saving"] = seconds_of(lambda: in_loop(saving, eval_steps))
        played.append(found)
    return played[1:]


def loop_rows(name: str, played: Rounds) -> list[pages.Row]:
    """Returns the rows of loop and bare step."""
    return [
        {
            "step": f"{kind}, {name}",
            "bare (ms)": Range.of([1e3 * each[f"bare {kind}"] for each in played]),
            "in the loop (ms)": Range.of([1e3 * each[kind] for each in played]),
            "overhead (ms)": Range.of(
                [1e3 * (each[kind] - each[f"bare {kind}"]) for each in played]
            ),
            "loop / bare": ratio(played, f"bare {kind}", kind),
        }
        for kind in ("training", "evaluation")
    ]


def main() -> None:
    parser = pages.parser(__doc__, rounds=7)
    parser.add_argument("--epochs", type=int, default=4, help="of a run in the loop")
    arguments = parser.parse_args()
    packages = ("jax", "jaxlib", "flax", "orbax-checkpoint")
    result = pages.record("startup", "The start, the loop and a save", "start-and-loop", *packages)
    loop, saves = [], []
    for name, fields in NETWORKS.items():
        played = play(fields, arguments.rounds, arguments.epochs)
        loop += loop_rows(name, played)
        costs = [(each["saving"] - each["plain"]) / (arguments.epochs - 1) for each in played]
        saves.append({"checkpoint of": name, "costs the run (s)": Range.of(costs)})
    result["tables"] = {"Loop and bare step": loop, "A save": saves}
    result["tables"]["The start"] = start_rows(arguments.rounds)
    pages.save(result, arguments.output)


if __name__ == "__main__":
    main()
