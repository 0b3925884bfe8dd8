"""Figures of the network itself: where it looks, its first filters, its map of the images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax import thumbnails
from resnet_jax.models.depths import first_kernel
from resnet_jax.report import pictures
from resnet_jax.report.answers import NO_IMAGES, answer_line, class_name
from resnet_jax.report.asking import Asked
from resnet_jax.report.parts import Card, Figure, Gallery
from resnet_jax.report.style import BLUE, CLASS_COLOURS, ORANGE, drawn

_EXAMPLES, _MAPPED, _FILTERS = 8, 1000, 64


def parts(asked: Asked) -> tuple[Figure | Gallery, ...]:
    """Returns Grad-CAM, the map of the features, and the first filters."""
    return _where_it_looks(asked), _features(asked), _filters(asked)


def _where_it_looks(asked: Asked) -> Gallery:
    name, title = "grad_cam", "Where it looks"
    caption = (
        "Grad-CAM (Selvaraju et al. 2017): bright is where the last stage's map speaks for the"
        " answer below the picture. Images at equal distances in the split, not chosen."
    )
    if asked.answers is None or asked.take is None:
        return Gallery(name, title, caption, why=NO_IMAGES)
    every = np.sort(np.concatenate(asked.answers.places))
    taken = asked.take(every[thumbnails.spread(_EXAMPLES, len(every))])
    seen, cards = asked.look(taken.images), []
    for number, (image, label) in enumerate(zip(taken.images, taken.labels, strict=True)):
        answer = int(seen.answers[number].argmax())
        is_right = answer == label
        lines = (
            answer_line(asked.classes, answer, seen.answers[number, answer]),
            "" if is_right else f"is {class_name(asked.classes, int(label))}",
        )
        picture = pictures.png(pictures.with_heat(image, seen.heat[number]))
        cards.append(Card(picture, lines, is_right))
    return Gallery(name, title, caption, tuple(cards), pairs=True)


def _features(asked: Asked) -> Figure:
    title = "Map of the features"
    caption = (
        "What the classifier sees of images, in the two directions in which it varies most (PCA)."
        " Classes that lie apart are told apart; a cross is a wrong answer."
    )
    if asked.answers is None or asked.take is None:
        return Figure("features", title, caption, why=NO_IMAGES)
    every = np.sort(np.concatenate(asked.answers.places))
    taken = asked.take(every[thumbnails.spread(_MAPPED, len(every))])
    seen = asked.look(taken.images)
    if len(taken.images) < 3 or not np.isfinite(seen.features).all():
        why = "It needs features of at least three images, all of them finite numbers."
        return Figure("features", title, caption, why=why)
    points, shares = principal_components(seen.features)
    is_right = seen.answers.argmax(-1) == taken.labels
    png = drawn(
        lambda figure: _scatter(figure, points, shares, taken.labels, is_right, asked.classes), 4.2
    )
    return Figure("features", title, f"{caption} {len(points):,} images.", png)


def principal_components(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns features [n, F] in their two principal components, [n, 2], and the share of the
    variance that each has.
    """
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    left, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    # A direction and its opposite are alike: the largest weight is positive.
    strongest = np.abs(directions[:2]).argmax(1)
    signs = np.sign(directions[[0, 1], strongest])
    shares = sizes**2 / max((sizes**2).sum(), 1e-300)
    return left[:, :2] * sizes[:2] * signs, shares[:2]


def _scatter(
    figure: Any,
    points: np.ndarray,
    shares: np.ndarray,
    labels: np.ndarray,
    is_right: np.ndarray,
    classes: Sequence[str],
) -> None:
    from matplotlib import patheffects

    names = (f"component {place}, {100 * share:.0f} % of the variance"
             for place, share in enumerate(shares, 1))  # fmt: skip
    axes = figure.add_subplot(**dict(zip(("xlabel", "ylabel"), names, strict=True)))
    by_class = len(classes) <= len(CLASS_COLOURS)
    colours = np.array(CLASS_COLOURS)[labels] if by_class else np.where(is_right, BLUE, ORANGE)
    axes.scatter(*points[is_right].T, c=colours[is_right], s=9, alpha=0.6, linewidths=0)
    axes.scatter(*points[~is_right].T, c=colours[~is_right], s=26, marker="x", linewidths=1.3)
    outline = [patheffects.withStroke(linewidth=3, foreground="w")]
    for number in np.unique(labels) if by_class else ():
        axes.text(
            *np.median(points[labels == number], 0), class_name(classes, int(number)),
            color=CLASS_COLOURS[number], weight="bold", ha="center", path_effects=outline,
        )  # fmt: skip


def _filters(asked: Asked) -> Figure:
    title = "First filters"
    kernels = np.asarray(first_kernel(asked.variables["params"]), np.float32)
    height, width, channels, count = kernels.shape
    caption = (
        f"The {height}×{width} kernels of the first convolution, each scaled to its own range."
        + (" Red is positive, blue negative." if channels == 1 else "")
        + (f" The first {_FILTERS} of {count}." if count > _FILTERS else "")
    )
    if channels not in (1, 3):
        why = f"They have {channels} channels, and only grey and RGB can be shown as colours."
        return Figure("filters", title, caption, why=why)
    if height == width == 1:
        return Figure("filters", title, caption, why="They are single pixels.")
    shown = min(count, _FILTERS)
    columns = 8
    rows = -(-shown // columns)

    def draw(figure: Any) -> None:
        for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            axes.set_axis_off()
            if place < shown:
                kernel = kernels[..., place]
                most = max(float(np.abs(kernel).max()), 1e-12)
                if channels == 1:
                    axes.imshow(kernel[..., 0], cmap="RdBu_r", vmin=-most, vmax=most)
                else:
                    axes.imshow(0.5 + kernel / (2 * most))

    return Figure("filters", title, caption, drawn(draw, 0.3 + 0.56 * rows))
