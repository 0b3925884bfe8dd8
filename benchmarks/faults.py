"""Kills a training process again and again, and shows that nothing is lost.

    python -m benchmarks.faults [--kills=50] [--seed=0] --output results

One run is left alone. Another is killed at random moments while it starts and compiles, takes
steps, evaluates or saves, by SIGKILL or SIGTERM, and started again by the same command each time.
It must end with the parameters, the statistics and the log of the first, bit for bit, and no
checkpoint that has its final name may ever be damaged. A run that ends before all kills are spent
is compared and followed by a fresh one. With --output it writes faults.md there.
"""

import argparse
import collections
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.contest import machine, output_folder
from benchmarks.run_logs import command_line
from resnet_jax import run
from resnet_jax.training.checkpointing import checksums
from resnet_jax.training.reporting import logbook

ROOT = Path(__file__).parents[1]
MOMENTS = ("start and compile", "step", "evaluate", "save")
RECIPE = (
    "--config=configs/quickstart.py",
    "--config.model.width=8",
    "--config.model.stage_sizes=1,1",
    "--config.num_epochs=40",
    "--config.data.flip=True",
)


def start(workdir: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "launch.py", *RECIPE, f"--workdir={workdir}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(moment: str, process: subprocess.Popen, workdir: Path, draw: random.Random) -> None:
    """Returns at a random instant of `moment`, or when the process has ended."""
    checkpoints, log = workdir / "checkpoints", workdir / "metrics.jsonl"
    if moment == "start and compile":
        time.sleep(draw.uniform(0, 4))
        return
    for line in process.stdout:  # the table is printed once all is compiled
        if line.startswith("workdir"):
            break
    time.sleep(draw.uniform(0, 0.3))
    trained = lines(log)
    while process.poll() is None:
        if moment == "step":
            time.sleep(draw.uniform(0, 0.3))
            return
        if (
            moment == "save"
            and checkpoints.exists()
            and any("tmp" in path.name for path in checkpoints.iterdir())
        ):
            time.sleep(draw.uniform(0, 0.03))
            return
        # The only line of an epoch's training is written right before its evaluation, whose own
        # comes after.
        if moment == "evaluate" and lines(log) > trained:
            time.sleep(draw.uniform(0, 0.01))
            return
        time.sleep(0.0005)


def lines(log: Path) -> int:
    """Counts the lines on training in a run's log."""
    return log.read_text().count('"split": "train"') if log.exists() else 0


def damaged(workdir: Path) -> list[str]:
    """Returns what is wrong with the committed checkpoints of a run."""
    found = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    return [f"{path}: {fault}" for path in found if (fault := checksums.fault(path))]


def log_of(workdir: Path) -> list[dict]:
    return [
        {name: value for name, value in record.items() if name not in logbook.TIMES}
        for record in logbook.read(workdir)
    ]


def is_same(workdir: Path, straight: Path) -> bool:
    """Whether two finished runs have the same parameters, statistics and log, bit for bit."""
    (_, ours, answers), (_, theirs, expected) = (
        run.restore(path, "last") for path in (workdir, straight)
    )
    equal = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), ours, theirs)
    return (
        answers.step == expected.step
        and all(jax.tree.leaves(equal))
        and log_of(workdir) == log_of(straight)
    )


def finish(workdir: Path) -> None:
    process = start(workdir)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the run ended with status {process.returncode}:\n{output}")


def strike(workdir: Path, draw: random.Random, counts: collections.Counter) -> bool:
    """Starts the run and kills it; returns whether it was killed before it ended."""
    moment, number = draw.choice(MOMENTS), draw.choice((signal.SIGKILL, signal.SIGTERM))
    process = start(workdir)
    wait_for(moment, process, workdir, draw)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    if process.returncode == 0:
        return False
    # Before the handlers are there, SIGTERM ends the interpreter as it ends any.
    if process.returncode not in (-number, 128 + number):
        raise RuntimeError(
            f"status {process.returncode} after {number.name} during {moment}:\n{output}"
        )
    counts[moment, number.name] += 1
    return True


def torment(kills: int, seed: int, folder: Path) -> tuple[collections.Counter, int, list[str]]:
    """Spends all kills; returns their counts, how many runs they were spread over, and every fault
    found.
    """
    draw, counts, faults = random.Random(seed), collections.Counter(), []
    straight, number = folder / "straight", 0
    finish(straight)
    while counts.total() < kills:
        workdir = folder / f"broken{number}"
        number += 1
        while counts.total() < kills and strike(workdir, draw, counts):
            faults += damaged(workdir)
            print(f"{counts.total()} kills, {len(faults)} faults", flush=True)
        finish(workdir)
        if not is_same(workdir, straight):
            faults.append(f"{workdir} ended otherwise than the undisturbed run")
    return counts, number, faults


def report(counts: collections.Counter, runs: int, faults: list[str], minutes: float) -> str:
    host = machine(())
    rows = [
        f"| {moment} | {counts[moment, 'SIGKILL']} | {counts[moment, 'SIGTERM']} |"
        for moment in MOMENTS
    ]
    outcome = "none" if not faults else "; ".join(faults)
    return "\n".join(
        [
            "# Faults: a training process killed at random moments",
            "",
            (
                f"`{command_line(sys.argv)}` on {host['cores']} cores ({host['cpu']}), jax"
                f" {jax.__version__}, {minutes:.0f} minutes."
            ),
            "",
            "| while it was to | SIGKILL | SIGTERM |",
            "|---|---|---|",
            *rows,
            "",
            (
                f"{counts.total()} kills, spread over {runs} run{'s' if runs > 1 else ''} of 880"
                " steps. Faults found (a committed checkpoint damaged at any time; parameters,"
                " statistics or log at the end other than the undisturbed run's, bit for bit):"
                f" {outcome}."
            ),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output", type=output_folder, help="folder for the page; nothing is written without it"
    )
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        counts, runs, faults = torment(options.kills, options.seed, Path(folder))
    text = report(counts, runs, faults, (time.monotonic() - began) / 60)
    print(text)
    if options.output:
        (options.output / "faults.md").write_text(text)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
