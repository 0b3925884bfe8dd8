"""Figures on what a network answered: right and wrong, class by class, and how sure it was."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from resnet_jax.report import pictures
from resnet_jax.report.asking import NOT_THERE, Asked
from resnet_jax.report.parts import Card, Figure, Gallery, Table
from resnet_jax.report.style import BLUE, GREY, INK, ORANGE, WIDTH, drawn
from resnet_jax.training.answers import CALIBRATION_BINS, Answers
from resnet_jax.training.reporting import scorecard

_GONE = f"{NOT_THERE}, for the reason that is told at the top."
NO_IMAGES = f"{_GONE} The run kept none either (config.keep_thumbnails)."
_PICTURES = 12
_MATRIX_CLASSES, _BAR_CLASSES, _WORST = 30, 40, 30
_LONGEST_NAME, _SHORT_NAME = 22, 15


def figures(asked: Asked) -> tuple[Figure | Table, ...]:
    """Returns the confusions, the accuracy of each class, and the calibration."""
    if asked.answers is None or asked.why_gone is not None:
        why = f"{_GONE} This needs an answer to every image of the split."
        return tuple(maker(None, asked.classes, why) for maker in _MAKERS)
    return all_figures(asked.answers, asked.classes)


def all_figures(answers: Answers, classes: tuple[str, ...]) -> tuple[Figure | Table, ...]:
    """Returns the same of answers to a whole split."""
    made = tuple(maker(answers, classes, "") for maker in _MAKERS)
    return (*made, _worst_classes(answers, classes))


def galleries(asked: Asked) -> tuple[Gallery, ...]:
    """Returns the mistakes in which the network was most confident, and the correct predictions in
    which it was least.
    """
    mistakes = (
        "Wrong answers with the highest probability: look for wrong labels, images of two classes,"
        " and what the network confuses. The number is the image's place in the split."
    )
    correct = (
        "Right answers with the lowest probability: what is hard, and was got right all the same."
    )
    return (
        _gallery(asked, "mistake", "Most confident mistakes", mistakes, is_right=False),
        _gallery(asked, "correct", "Least confident correct predictions", correct, is_right=True),
    )


def _gallery(asked: Asked, name: str, title: str, caption: str, *, is_right: bool) -> Gallery:
    if asked.answers is None or asked.take is None:
        return Gallery(name, title, caption, why=NO_IMAGES)
    if asked.why_gone is not None:
        caption += " Among the images that the run kept."
    chosen = _chosen(asked.answers, is_right)
    if not len(chosen):
        why = f"There is no {'right' if is_right else 'wrong'} answer."
        return Gallery(name, title, caption, why=why)
    return Gallery(name, title, caption, _cards(asked, chosen, is_right))


def _chosen(answers: Answers, is_right: bool) -> np.ndarray:
    """Returns the rows of the answers to show, the foremost first."""
    labels, predictions = np.concatenate(answers.labels), np.concatenate(answers.predictions)
    rows = np.flatnonzero(((labels == predictions) == is_right) & (predictions >= 0))
    confidence = np.concatenate(answers.confidences)[rows]
    order = 1 if is_right else -1
    return rows[np.argsort(order * confidence, kind="stable")[:_PICTURES]]


def _cards(asked: Asked, rows: np.ndarray, is_right: bool) -> tuple[Card, ...]:
    assert asked.answers is not None
    assert asked.take is not None
    columns = (asked.answers.places, asked.answers.predictions, asked.answers.confidences)
    places, predictions, confidence = (np.concatenate(column)[rows] for column in columns)
    order = np.argsort(places)
    taken = asked.take(places[order])
    at = {int(place): row for row, place in enumerate(taken.places)}
    cards = []
    for number, place in enumerate(places.tolist()):
        if place not in at:  # It could be read a moment ago.
            continue
        label = int(taken.labels[at[place]])
        lines = (
            answer_line(asked.classes, int(predictions[number]), confidence[number]),
            "" if is_right else f"is {class_name(asked.classes, label)}",
            f"no. {place}",
        )
        image = pictures.png(pictures.shown(taken.images[at[place]]))
        cards.append(Card(image, lines, is_right))
    return tuple(cards)


def class_name(classes: Sequence[str], number: int, longest: int = _LONGEST_NAME) -> str:
    """Returns a class's name, cut where it is long; a network may have more than the data."""
    name = classes[number] if number < len(classes) else str(number)
    return name if len(name) <= longest else f"{name[: longest - 1].rstrip()}…"


def answer_line(classes: Sequence[str], number: int, probability: float) -> str:
    """Returns an answer with its probability, which a line break does not take apart."""
    return f"{class_name(classes, number)} · {100 * probability:.1f}\N{NO-BREAK SPACE}%"


def _confusion(answers: Answers | None, classes: tuple[str, ...], why: str) -> Figure:
    if len(classes) <= _MATRIX_CLASSES:
        title, caption = "Confusion matrix", (
            "A row holds the images of a class, a column the answers, in percent of the row: the"
            " diagonal is right, dark cells beside it are confusions."
        )  # fmt: skip
        if answers is None:
            return Figure("confusion", title, caption, why=why)
        confusion = answers.confusion(len(classes))
        names = [class_name(classes, number) for number in range(len(confusion))]
        small = confusion[: len(classes)]
        png = drawn(lambda figure: scorecard.paint(figure, small, names), WIDTH)
        return Figure("confusion", title, caption, png)
    title = f"The {_WORST} worst confusions of {len(classes):,} classes"
    caption = "Class → answer: the pairs with the most images that were taken for another class."
    if answers is None:
        return Figure("confusion", title, caption, why=why)
    bars = [
        (" → ".join(class_name(classes, number, _SHORT_NAME) for number in pair), count)
        for *pair, count in answers.mistakes()[:_WORST]
    ]
    if not bars:
        return Figure("confusion", title, caption, why="No image was taken for another class.")
    return Figure("confusion", title, caption, _bars(bars, "images", "{:.0f}"))


def _per_class(answers: Answers | None, classes: tuple[str, ...], why: str) -> Figure:
    title = "Accuracy of each class"
    few = len(classes) <= _BAR_CLASSES
    caption = (
        "The share of each class's images that was right, the worst first; the line is the mean"
        " over classes."
        if few
        else "How many classes reach which accuracy; the line is the mean over classes."
    )
    if answers is None:
        return Figure("per_class", title, caption, why=why)
    images, right = answers.per_class(len(classes))
    seen = np.flatnonzero(images)
    shares = 100 * right[seen] / images[seen]
    if few:
        order = np.argsort(shares, kind="stable")
        names = [class_name(classes, number) for number in seen[order].tolist()]
        bars = list(zip(names, shares[order].tolist(), strict=True))
        return Figure("per_class", title, caption, _bars(bars, "right, %", "{:.1f}", shares.mean()))

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(xlabel="right, %", ylabel="classes")
        axes.hist(shares, bins=np.linspace(0, 100, 21), color=BLUE, edgecolor="w")
        axes.axvline(shares.mean(), color=ORANGE, linestyle="--")

    return Figure("per_class", title, caption, drawn(draw))


def _worst_classes(answers: Answers, classes: tuple[str, ...]) -> Table:
    rows = [row for row in scorecard.class_rows(answers, classes) if row[1]]
    few = len(rows) <= _BAR_CLASSES
    rows = sorted(rows, key=lambda row: row[2] / row[1])[: None if few else _WORST]
    return Table(
        "Class by class" if few else f"The {len(rows)} worst classes",
        "The worst first, each with the class that its images were most often taken for.",
        ("class", "images", "right", "%", "most often taken for"),
        [
            (name, f"{images:,}", f"{right:,}", f"{100 * right / images:.1f}",
             f"{wrong} ({times:,})" if times else "")
            for name, images, right, wrong, times in rows
        ],
        is_folded=True,
    )  # fmt: skip


def _reliability(answers: Answers | None, classes: tuple[str, ...], why: str) -> Figure:
    title = "Reliability"
    caption = (
        "Answers in bins by their probability: a dot says how many of a bin were right. On the"
        " diagonal the network knows what it knows; below it, it is too sure. The bars below show"
        " how many answers a bin has. ECE is the expected calibration error (Guo et al. 2017)."
    )
    if answers is None:
        return Figure("reliability", title, caption, why=why)
    counts, right, claimed = answers.calibration()
    full = counts > 0
    error = answers.calibration_error()

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1)
        sure, share = 100 * claimed[full] / counts[full], 100 * right[full] / counts[full]
        upper.vlines(
            sure, np.minimum(sure, share), np.maximum(sure, share), color=ORANGE, alpha=0.5
        )
        upper.plot(sure, share, "o", color=BLUE, markersize=5, clip_on=False)
        upper.text(0.03, 0.92, f"ECE {100 * error:.2f} %", transform=upper.transAxes, color=INK)
        upper.set(ylabel="right, %", ylim=(0, 103))
        middles = (np.arange(CALIBRATION_BINS) + 0.5) * 100 / CALIBRATION_BINS
        lower.bar(middles, counts, width=90 / CALIBRATION_BINS, color=GREY)
        lower.set(xlabel="probability of the answer, %", ylabel="answers", xlim=(0, 100))
        if counts.max() > 50 * max(1, np.median(counts[full])):
            lower.set_yscale("log")
        lower.yaxis.set_major_formatter("{x:,.0f}")

    return Figure("reliability", title, caption, drawn(draw, 3.8))


_MAKERS = (_confusion, _per_class, _reliability)


def _bars(
    bars: Sequence[tuple[str, float]], label: str, form: str, mean: float | None = None
) -> bytes:
    """Draws horizontal bars, the first on top, each with its number."""
    write: Callable[[float], str] = form.format

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(xlabel=label)
        names, values = zip(*bars, strict=True)
        drawn_bars = axes.barh(range(len(bars)), values, color=BLUE, height=0.72)
        behind = {"facecolor": "w", "edgecolor": "none", "pad": 1}
        texts = [write(value) for value in values]
        axes.bar_label(drawn_bars, texts, padding=4, fontsize=8, bbox=behind)
        axes.set_yticks(range(len(bars)), names, fontsize=8 if len(bars) > 12 else None)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(-0.6, len(bars) - 0.4)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        if mean is not None:
            axes.axvline(mean, color=ORANGE, linestyle="--", linewidth=1.2)

    return drawn(draw, 0.8 + 0.2 * max(len(bars), 8))
