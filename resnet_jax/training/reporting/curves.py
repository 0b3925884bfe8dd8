"""The epochs of runs and their table over seeds, from the lines of `metrics.jsonl`."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from resnet_jax.training.reporting.logbook import is_training

Epochs = list[dict[str, float]]
"""A run, a line an epoch: "step", "epoch", "train_loss" and "train_top1" (means over the epoch, in
training mode), "eval_loss" and "eval_top1" where the evaluation split was scored, and two times
since training began: "seconds", spent in steps and in waiting for data, and "steady_seconds", had
each step taken the median of those logged with it."""


def by_epoch(records: Iterable[Mapping[str, Any]], batch_size: int) -> Epochs:
    """Returns the epochs of a run.

    Args:
      records: from `logbook.read`.
      batch_size: of the run.
    """
    scores = {line["step"]: line for line in records if not is_training(line)}
    lines = [line for line in records if is_training(line)]
    epochs, loss, top1, count = [], 0.0, 0.0, 0
    seconds = steady = step = 0.0
    for line in lines:
        # A line tells of the steps since the one before; evaluating and saving lie between them.
        steps, step = line["step"] - step, line["step"]
        seconds += steps * batch_size / line["images_per_sec"]
        steady += steps * line["step_ms_p50"] / 1000
        loss, top1, count = loss + steps * line["loss"], top1 + steps * line["top1"], count + steps
        is_last = line is lines[-1]
        if line["epoch"] % 1 == 0 or is_last:
            epoch = {"step": step, "epoch": line["epoch"]}
            epoch |= {"seconds": round(seconds, 2), "steady_seconds": round(steady, 2)}
            epoch |= {"train_loss": round(loss / count, 5), "train_top1": round(top1 / count, 5)}
            scored = scores.get(step)
            if scored is None and is_last:
                # A run that ended at a score may have no line on training steps there.
                scored = scores.get(max([step, *scores]))
            if scored:
                epoch |= {"eval_loss": round(scored["loss"], 5), "eval_top1": scored["top1"]}
            epochs.append(epoch)
            loss, top1, count = 0.0, 0.0, 0
    return epochs


def over_seeds(runs: Sequence[Epochs]) -> dict[str, Any]:
    """Returns the figures of a recipe's runs with several seeds, by name.

    The score is that after the last step; times are medians over the runs.
    """
    total, steady = (
        statistics.median(epochs[-1][kind] for epochs in runs)
        for kind in ("seconds", "steady_seconds")
    )
    count = runs[0][-1]["epoch"]
    return {
        "top-1": mean_and_deviation([epochs[-1]["eval_top1"] for epochs in runs]),
        "n": len(runs),
        "training time (s)": total,
        "s an epoch": total / count,
        "steady s an epoch": steady / count,
    }


def mean_and_deviation(values: Sequence[float], digits: int = 4) -> str:
    """Returns the mean and, of several, the sample standard deviation (n - 1), as text."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def epoch_seconds(epochs: Epochs) -> list[float]:
    """Returns the seconds of each epoch."""
    ends = [0.0, *(line["seconds"] for line in epochs)]
    return [after - before for before, after in itertools.pairwise(ends)]


def mean_curve(runs: Sequence[Epochs], kind: str) -> tuple[list[float], list[float]]:
    """Returns the epochs at which every run has a figure of a kind, and the means there."""
    found = [{line["epoch"]: line[kind] for line in epochs if kind in line} for epochs in runs]
    shared = sorted(set.intersection(*map(set, found)))
    return shared, [statistics.mean(run[epoch] for run in found) for epoch in shared]
