"""The way to a run's first step, and what loop, checkpoints and answers cost beside bare steps.

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
import numpy as np
from PIL import Image

from benchmarks import pages
from benchmarks.harness import ROOT, Range, Rounds, alternate, load_recipe, ratio, seconds_of
from resnet_jax.classifier import BATCH_SIZE, Classifier
from resnet_jax.commands.train import train
from resnet_jax.config import build_model, set_field
from resnet_jax.description import Description
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.experiment import Experiment
from resnet_jax.training.reporting import logbook

START_LIMIT = 300.0  # seconds
FILES = 10_000
# Nothing is scored or saved before the end.
RECIPE = {"data.eval_split": "train", "eval_every_epochs": 1e6, "checkpoint.every_epochs": 1e6}
# Steps beyond the last: no rate may fall to a number that makes arithmetic slow.
RECIPE |= {"schedule.name": "constant", "schedule.warmup_epochs": 0, "schedule.base_lr": 0.01}
RESNET18 = {"data.image_size": 28, "model.stem": "imagenet", "model.width": 64}
RESNET18 |= {"model.stage_sizes": (2, 2, 2, 2)}
NETWORKS = {"ResNet-18, 64 of 28x28x1": RESNET18, "ResNet-8, 64 of 8x8x1": {}}
IMPORTS = {
    "import jax, flax.linen": ["-c", "import jax, flax.linen"],
    "import resnet_jax": ["-c", "import resnet_jax"],
    "python launch.py --help": ["launch.py", "--help"],
}


def start(workdir: Path, cache: Path, *flags: str) -> tuple[float, int]:
    """Starts the quickstart and stops it after its first step.

    Returns:
      Seconds from the start of the process to that step's line in the log; and how many programs
      were compiled, that is, not found in the directory of compiled programs.
    """

    def lines() -> int:
        return log.read_text().count("\n") if log.exists() else 0

    log, known = workdir / "metrics.jsonl", {*cache.glob("*-cache")}
    logged, began = lines(), time.perf_counter()
    command = [sys.executable, "launch.py", "--config=configs/quickstart.py", *flags]
    command += ["--config.log_every_steps=1", f"--workdir={workdir}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    while lines() <= logged:
        if process.poll() is not None or time.perf_counter() - began > START_LIMIT:
            process.kill()
            raise RuntimeError(process.communicate()[0].decode())
        time.sleep(0.002)
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGTERM)
    process.communicate()
    return seconds, len({*cache.glob("*-cache")} - known)


def start_rows(rounds: int, *flags: str) -> list[pages.Row]:
    """Returns a row for each kind of start, and for the imports that every start pays."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, workdirs in {
            "with nothing compiled": ["first"],
            "the same run, resumed": ["first"],
            "another run of the recipe": [f"other{number}" for number in range(rounds)],
        }.items():
            found = [start(Path(folder, name), Path(folder, "cache"), *flags) for name in workdirs]
            seconds, programs = zip(*found, strict=True)
            row = {"start": f"quickstart, {kind}", "seconds": Range.of(seconds)}
            rows.append(row | {"programs compiled": max(programs)})
    call = partial(subprocess.run, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    turns = {
        name: partial(seconds_of, partial(call, [sys.executable, *words]))
        for name, words in IMPORTS.items()
    }
    played, _ = alternate(turns, rounds)
    for name in IMPORTS:
        rows.append({"start": f"`{name}`", "seconds": Range.of([each[name] for each in played])})
    return rows


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


def take(step: Callable[[], Any], count: int) -> None:
    """Takes steps with the host one ahead of the device, as the loop is."""
    before = step()
    for _ in range(count - 1):
        after = step()
        jax.block_until_ready(before)
        before = after
    jax.block_until_ready(before)


def play(fields: dict[str, Any], rounds: int, epochs: int) -> Rounds:
    """Lets whole runs, without checkpoints and with one an epoch, and bare steps take turns.

    The runs are of so many `epochs` of the quickstart's recipe, whose digits lie in memory, with
    some fields changed. The first round does not count, nor the first epoch in "training".

    Returns:
      Seconds a step: "training", "bare training", "evaluation", "bare evaluation"; and of a whole
      run: "plain", "saving".
    """
    config = load_recipe("quickstart")
    for name, value in (RECIPE | {"num_epochs": epochs} | fields).items():
        set_field(config, name, value)
    prepare_runtime(config.precision)
    experiment, played = Experiment.for_training(config), []
    steps = {"training": experiment.plan.steps_per_epoch, "evaluation": len(experiment.eval_loader)}

    def run(save_every: float) -> dict[str, float]:
        set_field(config, "checkpoint.every_epochs", save_every)
        with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stdout(io.StringIO()):
            whole = seconds_of(lambda: train(config, workdir))
            *lines, scored = logbook.read(workdir)
        seconds = [config.batch_size / line["images_per_sec"] for line in lines[1:]]
        found = {"whole": whole, "training": sum(seconds) / len(seconds)}
        evaluating = scored["examples"] / scored["images_per_sec"]
        return found | {"evaluation": evaluating / steps["evaluation"]}

    for _ in range(rounds + 1):
        found = run(RECIPE["checkpoint.every_epochs"])
        found["plain"], found["saving"] = found.pop("whole"), run(1.0)["whole"]
        for kind, step in zip(steps, bare_steps(experiment), strict=True):
            seconds = seconds_of(partial(take, step, 4 * steps[kind]))
            found[f"bare {kind}"] = seconds / (4 * steps[kind])
        played.append(found)
    return played[1:]


def loop_row(kind: str, name: str, played: Rounds) -> pages.Row:
    """Returns the row of "training" or "evaluation" in the loop and bare."""
    pairs = [(1e3 * each[f"bare {kind}"], 1e3 * each[kind]) for each in played]
    return {
        "step": f"{kind}, {name}",
        "bare (ms)": Range.of([bare for bare, _ in pairs]),
        "in the loop (ms)": Range.of([whole for _, whole in pairs]),
        "overhead (ms)": Range.of([whole - bare for bare, whole in pairs]),
        "loop / bare": ratio(played, f"bare {kind}", kind),
    }


def predict_row(
    folder: Path, name: str, fields: dict[str, Any], files: int, rounds: int
) -> pages.Row:
    """Returns the row of predicting so many PNG files of 28x28, beside bare inference.

    The files are noise, which takes PNG longer to unpack than a picture does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(files)]
    for path in paths:
        Image.fromarray(noise.integers(0, 256, (28, 28), np.uint8)).save(path)
    config = load_recipe("quickstart")
    for field, value in ({"model.num_classes": 10} | fields).items():
        set_field(config, field, value)
    model = build_model(config)
    shape = (BATCH_SIZE, 28, 28, 1)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros(shape, np.float32))
    about = Description(
        classes=tuple("0123456789"), eval_size=28, crop=1.0, mean=(0.5,), std=(0.25,)
    )
    classifier = Classifier(model, variables, about)
    bare = jax.jit(partial(model.apply, train=False))
    images = jax.device_put(np.zeros(shape, np.float32))
    steps = -(-files // BATCH_SIZE)
    turns = {
        "bare": lambda: seconds_of(partial(take, partial(bare, variables, images), steps)),
        "predicted": lambda: seconds_of(partial(classifier.predict, paths)),
    }
    for turn in turns.values():  # compiles
        turn()
    played, _ = alternate(turns, rounds)
    return {
        "files": f"{files:,} PNG of 28x28, {name}",
        "bare (s)": Range.of([each["bare"] for each in played]),
        "predicted (s)": Range.of([each["predicted"] for each in played]),
        "predicted / bare": ratio(played, "bare", "predicted"),
    }


def main() -> None:
    parser = pages.parser(__doc__, rounds=7)
    parser.add_argument("--epochs", type=int, default=4, help="of a run in the loop")
    arguments = parser.parse_args()
    packages = ("jax", "jaxlib", "flax", "orbax-checkpoint")
    result = pages.record("startup", "The start, the loop and a save", "start-and-loop", *packages)
    loop, saves = [], []
    result["tables"] = {"Loop and bare step": loop, "A save": saves}
    for name, fields in NETWORKS.items():
        played = play(fields, arguments.rounds, arguments.epochs)
        loop += [loop_row(kind, name, played) for kind in ("training", "evaluation")]
        costs = [(each["saving"] - each["plain"]) / (arguments.epochs - 1) for each in played]
        saves.append({"checkpoint of": name, "costs the run (s)": Range.of(costs)})
        pages.save(result, arguments.output)
    result["tables"]["Answers"] = answers = []
    for name, fields in NETWORKS.items():
        network = name.partition(",")[0]
        with tempfile.TemporaryDirectory() as folder:
            answers.append(predict_row(Path(folder), network, fields, FILES, arguments.rounds))
        pages.save(result, arguments.output)
    result["tables"]["The start"] = start_rows(arguments.rounds)
    pages.save(result, arguments.output)


if __name__ == "__main__":
    main()
