"""Scores of a split as a table for people, and class by class as files."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.errors import writing
from resnet_jax.training.answers import Answers

# So many classes are all shown; of more the worst.
_ALL_CLASSES, _WORST = 20, 10
_NAMED_IN_PICTURE, _NUMBERED_IN_PICTURE = 40, 12


def size_of(shape: Sequence[int]) -> int | list[int]:
    """Returns the side of images [H, W, C], or [H, W] where they are not square."""
    return shape[0] if shape[0] == shape[1] else list(shape[:2])


def named(size: int | Sequence[int]) -> str:
    """Returns what `size_of` gave as text, such as "224" or "32x48"."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def summary(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a table of scores, a row for each record.

    Args:
      records: each with "eval_size", "examples", "top1", "top5", "loss", "calibration_error".
    """
    rows = [("size", "images", "top-1", "top-5", "loss", "calibration error")]
    for record in records:
        rows.append(
            (
                named(record["eval_size"]),
                f"{record['examples']:,}",
                _percent(record["top1"]),
                _percent(record["top5"]),
                f"{record['loss']:.4f}",
                _percent(record["calibration_error"]),
            )
        )
    return _aligned(rows)


def per_class(answers: Answers, classes: Sequence[str]) -> list[str]:
    """Returns a table of the accuracy of each class, of many classes that of the worst."""
    rows = class_rows(answers, classes)
    heading = []
    if len(rows) > _ALL_CLASSES:
        scored = [row for row in rows if row[1]]
        rows = sorted(scored, key=lambda row: row[2] / row[1])[:_WORST]
        heading = [f"the {len(rows)} worst of {len(classes):,} classes:"]
    table = [("class", "images", "right", "", "most often taken for")]
    for name, images, right, wrong, times in rows:
        share = _percent(right / images) if images else ""
        confused = f"{wrong} ({times:,})" if times else ""
        table.append((name, f"{images:,}", f"{right:,}", share, confused))
    return heading + _aligned(table, flush_left=True)


def class_rows(answers: Answers, classes: Sequence[str]) -> list[tuple[str, int, int, str, int]]:
    """Returns of each class its name, its images, how many were right, and the class that it was
    most often taken for ("" for none) with how often.
    """
    images, right = (counts.tolist() for counts in answers.per_class(len(classes)))
    # Of pairs with as many images the first comes last, and stays.
    worst = {label: pair for label, *pair in reversed(answers.mistakes())}
    names = _columns(classes, max([len(classes), *(pair[0] + 1 for pair in worst.values())]))
    rows = []
    for place, name in enumerate(classes):
        wrong, times = worst.get(place, (0, 0))
        rows.append((name, images[place], right[place], names[wrong] if times else "", times))
    return rows


def write(directory: Path, size: str, answers: Answers, classes: Sequence[str]) -> list[Path]:
    """Writes classes_SIZE.csv and confusion_SIZE.csv, and with matplotlib confusion_SIZE.png.

    Args:
      directory: where they go; made if it is absent.
      size: of the images, for the files' names.
      answers: to every example.
      classes: the names.

    Returns:
      The files.

    Raises:
      UserError: the directory cannot be written to.
    """
    confusion = answers.confusion(len(classes))
    names = _columns(classes, len(confusion))
    header = ("class", "images", "right", "accuracy", "most_often_taken_for", "times")
    rows = [
        (name, images, right, right / images if images else "", wrong, times)
        for name, images, right, wrong, times in class_rows(answers, classes)
    ]
    tables = {
        f"classes_{size}.csv": [header, *rows],
        f"confusion_{size}.csv": [
            ("class", *names),
            *((name, *row) for name, row in zip(classes, confusion.tolist(), strict=False)),
        ],
    }
    with writing(f"--output_dir={directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            with (directory / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(table)
        written = [directory / name for name in tables]
        if draw(confusion[: len(classes)], names, directory / f"confusion_{size}.png"):
            written.append(directory / f"confusion_{size}.png")
    return written


def draw(confusion: np.ndarray, names: Sequence[str], path: Path) -> bool:
    """Draws the share of each class [row] that was taken for each [column]; False without
    matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    side = 3 + 0.25 * len(names) if len(names) <= _NAMED_IN_PICTURE else 9
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    paint(figure, confusion, names)
    figure.savefig(path, dpi=120)
    return True


def paint(figure: Any, confusion: np.ndarray, names: Sequence[str]) -> None:
    """Puts the picture of `draw` into a figure of matplotlib; of few classes with its numbers."""
    from matplotlib.colors import PowerNorm

    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes = figure.add_subplot(xlabel="answer", ylabel="class")
    # The square root: confusions of a few percent are what one looks for.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    axes.grid(visible=False)
    if len(names) <= _NAMED_IN_PICTURE:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(shares)), names[: len(shares)])
    if len(names) > _NUMBERED_IN_PICTURE:
        figure.colorbar(image, label="share of the class", shrink=0.8)
        return
    for row, column in np.argwhere(confusion):
        share = shares[row, column]
        text = f"{100 * share:.0f}" if share > 0.0995 else f"{100 * share:.1f}"
        style = {"ha": "center", "va": "center", "fontsize": 7.5}
        axes.text(column, row, text, color="white" if share > 0.35 else "black", **style)


def _columns(classes: Sequence[str], width: int) -> list[str]:
    return [*classes, *map(str, range(len(classes), width))]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _aligned(rows: Iterable[Sequence[str]], flush_left: bool = False) -> list[str]:
    """Returns rows as lines in columns; the first and the last may be flush left."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flush = {0, len(widths) - 1} if flush_left else set()
    return [
        "  ".join(
            cell.ljust(width) if place in flush else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
