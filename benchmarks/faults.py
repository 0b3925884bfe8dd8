"""Kills a training process again and again, and shows that nothing is lost.

    python -m benchmarks.faults --kills=50 --output=results

One run is left alone. Another is killed at random moments while it starts and compiles, takes
steps, evaluates or saves, by SIGKILL or SIGTERM, and started again by the same command each time.
It must end with the parameters, the statistics and the log of the first, bit for bit, and no
checkpoint that has its final name may ever be damaged. A run that ends before all kills are spent
is compared and followed by another.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import pages
from benchmarks.harness import ROOT
from resnet_jax import run
from resnet_jax.training.checkpointing import checksums
from resnet_jax.training.reporting import logbook

MOMENTS = ("start and compile", "step", "evaluate", "save")
RECIPE = ["--config=configs/quickstart.py", "--config.model.width=8", "--config.num_epochs=40"]
RECIPE += ["--config.model.stage_sizes=1,1", "--config.data.flip=True"]


def command(workdir: Path) -> list[str]:
    return [sys.executable, "launch.py", *RECIPE, f"--workdir={workdir}"]


def wait_for(moment: str, process: subprocess.Popen, workdir: Path, rng: random.Random) -> None:
    """Returns at a random instant of `moment`, or when the process has ended."""
    if moment == "start and compile":
        time.sleep(rng.uniform(0, 4))
        return
    for line in process.stdout:  # the table is printed once all is compiled
        if line.startswith("workdir"):
            break
    time.sleep(rng.uniform(0, 0.3))
    trained = epochs(workdir)
    while process.poll() is None:
        if moment == "step":
            time.sleep(rng.uniform(0, 0.3))
            return
        if moment == "save" and any("tmp" in path.name for path in workdir.glob("checkpoints/*")):
            time.sleep(rng.uniform(0, 0.03))
            return
        # An epoch's only line of training is written right before its evaluation.
        if moment == "evaluate" and epochs(workdir) > trained:
            time.sleep(rng.uniform(0, 0.01))
            return
        time.sleep(0.0005)


def epochs(workdir: Path) -> int:
    """Counts the lines on training in a run's log."""
    log = workdir / "metrics.jsonl"
    return log.read_text().count('"split": "train"') if log.exists() else 0


def kill_at(moment: str, number: signal.Signals, workdir: Path, rng: random.Random) -> bool:
    """Starts the run and kills it; returns whether it was killed before it ended."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command(workdir), cwd=ROOT, **pipes)
    wait_for(moment, process, workdir, rng)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    # Before the handlers are there, SIGTERM ends the interpreter as it ends any.
    if process.returncode not in (0, -number, 128 + number):
        raise RuntimeError(f"status {process.returncode} after {number.name}, {moment}:\n{output}")
    return process.returncode != 0


def damaged(workdir: Path) -> list[str]:
    """Returns what is wrong with the committed checkpoints of a run."""
    found = [path for path in workdir.glob("checkpoints/*") if path.name.isdigit()]
    return [f"{path}: {fault}" for path in found if (fault := checksums.fault(path))]


def finish(workdir: Path) -> tuple[list[np.ndarray], list[Any]]:
    """Lets a run go on to its end; returns its variables, and its log but for times."""
    subprocess.run(command(workdir), cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    _, variables, description = run.restore(workdir, "last")
    log = [
        {name: value for name, value in line.items() if name not in logbook.TIMES}
        for line in logbook.read(workdir)
    ]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(variables)], [*log, description.step]


def torment(kills: int, seed: int, folder: Path) -> tuple[Counter, int, list[str]]:
    """Spends all kills; returns their counts, over how many runs they were spread, and the faults."""
    rng, counts, faults, runs = random.Random(seed), Counter(), [], 0
    arrays, log = finish(folder / "undisturbed")
    while counts.total() < kills:
        workdir, runs = folder / f"broken{runs}", runs + 1
        while counts.total() < kills:
            moment, number = rng.choice(MOMENTS), rng.choice((signal.SIGKILL, signal.SIGTERM))
            if not kill_at(moment, number, workdir, rng):
                break
            counts[moment, number.name] += 1
            faults += damaged(workdir)
            print(f"{counts.total()} kills, {len(faults)} faults", flush=True)
        found, its_log = finish(workdir)
        if its_log != log or not all(map(np.array_equal, found, arrays)):
            faults.append(f"{workdir.name} ended otherwise than the undisturbed run")
    return counts, runs, faults


def main() -> int:
    parser = pages.parser(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = pages.record("faults", "A training process killed at random moments", "faults", "jax")
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        counts, runs, faults = torment(arguments.kills, arguments.seed, Path(folder))
    for moment in MOMENTS:
        row = {name: counts[moment, name] for name in ("SIGKILL", "SIGTERM")}
        result["tables"].setdefault("Kills", []).append({"while it was to": moment} | row)
    outcome = {"kills": counts.total(), "runs of 880 steps": runs}
    result["tables"]["Outcome"] = [outcome | {"faults": "; ".join(faults) or "none"}]
    pages.save(result, arguments.output)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
