"""Learning curves: of one run, and of many with their means over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from resnet_jax.report.parts import Figure
from resnet_jax.report.record import NO_STEPS, Record
from resnet_jax.report.style import BLUE, COLOURS, GREY, ORANGE, drawn
from resnet_jax.training.reporting.curves import Epochs, mean_curve


def over_seeds(axes: Any, runs: Mapping[str, Sequence[Epochs]], kind: str, beside: str) -> None:
    """Draws a thin line a run, a thick one for a group's mean, and dashed the mean beside it.

    Args:
      axes: of matplotlib.
      runs: name of the group -> its runs.
      kind: what of `curves.Epochs` is drawn, such as "eval_top1".
      beside: what is drawn dashed, such as "train_top1".
    """
    for number, (name, seeds) in enumerate(runs.items()):
        colour = COLOURS[number % len(COLOURS)]
        for epochs in seeds if len(seeds) > 1 else ():
            axes.plot(*mean_curve([epochs], kind), color=colour, linewidth=0.6, alpha=0.6)
        mean = mean_curve(seeds, kind)
        marker = "o" if len(mean[0]) == 1 else ""
        label = name if len(runs) > 1 and len(seeds) == 1 else f"{name} (n = {len(seeds)})"
        axes.plot(*mean, color=colour, linewidth=2, marker=marker, label=label)
        axes.plot(*mean_curve(seeds, beside), color=colour, linewidth=1, linestyle="--")


def figures(record: Record) -> tuple[Figure, ...]:
    """Returns a run's learning curves and its schedule."""
    return (
        _curve(record, "loss", "Loss", "loss", 1),
        _curve(record, "top1", "Accuracy", "top-1, %", 100),
        _schedule(record),
    )


def _curve(record: Record, kind: str, title: str, label: str, scale: float) -> Figure:
    caption = (
        "Grey: the training images of each stretch of the log, augmented, and with what the recipe"
        " adds to the loss. Blue: the whole evaluation split, without."
        + (" The ring is the best checkpoint." if kind == "top1" else "")
    )
    if not record.lines:
        return Figure(kind, title, caption, why=NO_STEPS)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(xlabel="epoch", ylabel=label)
        for lines, name, style in (
            (record.training, "training", {"color": GREY, "linewidth": 1.2}),
            (record.evaluations, _split(record), {"color": BLUE, "marker": "o", "markersize": 3.5}),
        ):
            epochs = [line["epoch"] for line in lines]
            axes.plot(epochs, [scale * line[kind] for line in lines], label=name, **style)
        best = record.best()
        if kind == "top1" and best:
            at = best["epoch"], scale * best[kind]
            axes.plot(*at, "o", ms=10, mfc="none", mec=ORANGE, mew=1.8)
            axes.annotate(
                f"{at[1]:.2f}", at, (0, -14), textcoords="offset points", color=ORANGE, ha="center"
            )
        axes.legend()

    return Figure(kind, title, caption, drawn(draw))


def _split(record: Record) -> str:
    return record.evaluations[0]["split"] if record.evaluations else "evaluation"


def _schedule(record: Record) -> Figure:
    caption = "The learning rate of the steps that were taken, on the plan for the whole run."
    title, rate, total = "Schedule", record.rate(), record.total_steps
    if rate is None or total is None:
        why = "Neither the log nor environment.json tells how many steps an epoch has."
        return Figure("schedule", title, caption, why=why)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(xlabel="epoch", ylabel="learning rate")
        steps = np.unique(np.linspace(0, total - 1, 400).round().astype(int))
        planned = np.asarray(jax.vmap(rate)(steps))
        axes.plot(steps / record.steps_per_epoch, planned, color=GREY, ls="--", label="planned")
        taken = [(line["epoch"], line["lr"]) for line in record.training if "lr" in line]
        if taken:
            axes.plot(*zip(*taken, strict=True), color=BLUE, label="logged")
        axes.set_ylim(bottom=0)
        axes.legend()

    return Figure("schedule", title, caption, drawn(draw))


def comparison(runs: Mapping[str, Sequence[Epochs]]) -> tuple[Figure, ...]:
    """Returns the curves of several runs in the same axes.

    Args:
      runs: name of the group -> its runs, which differ in the seed alone.
    """
    caption = (
        "Solid: the evaluation split; dashed: the training images. Runs that differ in the seed"
        " alone have one colour: thin lines a run, the thick one their mean as far as all came."
    )

    def curve(kind: str, title: str, label: str) -> Figure:
        def draw(figure: Any) -> None:
            axes = figure.add_subplot(xlabel="epoch", ylabel=label)
            over_seeds(axes, runs, f"eval_{kind}", f"train_{kind}")
            figure.legend(loc="outside lower center", ncols=1)

        height = 3.1 + 0.19 * len(runs)
        return Figure(f"{kind}_compared", title, caption, drawn(draw, height))

    return curve("top1", "Accuracy", "top-1"), curve("loss", "Loss", "loss")
