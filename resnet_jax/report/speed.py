"""Figures on how fast a run went, and on where its time went."""

from collections.abc import Sequence
from typing import Any

from resnet_jax.report.parts import Figure
from resnet_jax.report.record import NO_STEPS, Record
from resnet_jax.report.style import BLUE, COLOURS, GREY, ORANGE, drawn
from resnet_jax.training.reporting.goodput import STEPS, WAITING


def figures(record: Record) -> tuple[Figure, ...]:
    """Returns throughput, data wait, step times and goodput."""
    lines = record.training
    return (
        _over_epochs(
            "throughput", "Throughput", lines, "images/s", _throughput,
            "Images a second in the steps of each stretch of the log: higher is better. Dips are"
            " first steps, or other work on the machine.",
        ),
        _over_epochs(
            "data_wait", "Waiting for data", lines, "share of the time, %", _data_wait,
            "How much of the time the devices waited for images. Near zero the network sets the"
            " pace; above some 10 % reading and decoding do.",
        ),
        _over_epochs(
            "step_time", "Step time", lines, "ms a step", _step_time,
            "The line is the median step of each stretch of the log, the band reaches up to the"
            " 95th percentile: a wide one means uneven steps.",
        ),
        _goodput(record),
    )  # fmt: skip


def _over_epochs(
    name: str, title: str, lines: Sequence[Any], label: str, draw: Any, caption: str
) -> Figure:
    if not lines:
        return Figure(name, title, caption, why=NO_STEPS)

    def on(figure: Any) -> None:
        axes = figure.add_subplot(xlabel="epoch", ylabel=label)
        draw(axes, [line["epoch"] for line in lines], lines)
        axes.set_ylim(bottom=0)

    return Figure(name, title, caption, drawn(on, 2.7))


def _throughput(axes: Any, epochs: Sequence[float], lines: Sequence[Any]) -> None:
    axes.plot(epochs, [line["images_per_sec"] for line in lines], color=BLUE)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _data_wait(axes: Any, epochs: Sequence[float], lines: Sequence[Any]) -> None:
    waits = [100 * line["data_wait"] for line in lines]
    axes.fill_between(epochs, waits, color=ORANGE, alpha=0.25, linewidth=0)
    axes.plot(epochs, waits, color=ORANGE)
    axes.set_ylim(top=max(5, 1.1 * max(waits)))


def _step_time(axes: Any, epochs: Sequence[float], lines: Sequence[Any]) -> None:
    half, most = ([line[f"step_ms_p{share}"] for line in lines] for share in (50, 95))
    axes.fill_between(epochs, half, most, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(epochs, half, color=BLUE, label="median")
    axes.plot(epochs, most, color=BLUE, linewidth=0.8, label="95th percentile")
    axes.legend()


def _goodput(record: Record) -> Figure:
    title = "Goodput"
    caption = (
        "What the wall time of each start was spent on, from the command to its end; steps are what"
        " one pays for."
    )
    ended = [
        (number, start["goodput"])
        for number, start in enumerate(record.starts, 1)
        if "goodput" in start
    ][-6:]
    if not ended:
        why = (
            "No start has noted where its time went: each was killed, still goes on, or is of a"
            " version that did not note it."
        )
        return Figure("goodput", title, caption, why=why)
    works = dict.fromkeys(work for _, noted in ended for work in noted["shares"])
    works = sorted(works, key=lambda work: (work != STEPS, work != WAITING, work == "other"))
    palette = COLOURS[:6]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(xlabel="share of the wall time, %")
        for row, (_, noted) in enumerate(ended):
            left = 0.0
            for place, work in enumerate(works):
                share = 100 * noted["shares"].get(work, 0.0)
                colour = GREY if work == "other" else palette[place % len(palette)]
                label = work if row == 0 else None
                axes.barh(row, share, left=left, color=colour, height=0.6, label=label)
                if share >= 8:
                    axes.text(
                        left + share / 2, row, f"{share:.0f}", ha="center", va="center", color="w"
                    )
                left += share
        names = [f"start {number}\n{duration(noted['seconds'])}" for number, noted in ended]
        axes.set_yticks(range(len(ended)), names)
        axes.set_xlim(0, 100)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=3)

    return Figure("goodput", title, caption, drawn(draw, 1.6 + 0.45 * len(ended)))


def duration(seconds: float) -> str:
    """Returns a stretch of time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
