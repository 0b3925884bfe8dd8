"""The page of a study of `benchmarks.degradation`, and the picture of its depths, from kept logs."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import drawing, pages
from benchmarks.fashion_mnist import Log, read_kept
from resnet_jax.errors import UserError
from resnet_jax.training.reporting import curves

VANISHED = 0.1  # a first layer's norm beside the last convolution's


def errors(logs: Sequence[Log], kind: str) -> list[float]:
    """Returns the last errors of runs in percent, "train" or "eval"."""
    return [100 * (1 - log.epochs[-1][f"{kind}_top1"]) for log in logs]


def error_row(name: str, logs: Sequence[Log]) -> pages.Row:
    header = logs[0].header
    speeds = [
        log.epochs[-1]["step"] * header["batch_size"] / log.epochs[-1]["steady_seconds"]
        for log in logs
    ]
    row = {"net": name, "parameters": header["parameters"], "images": header["train_images"]}
    row |= {"epochs": f"{header['num_epochs']:g}"}
    row |= {"training error (%)": curves.mean_and_deviation(errors(logs, "train"), 2)}
    row |= {"test error (%)": curves.mean_and_deviation(errors(logs, "eval"), 2), "n": len(logs)}
    return row | {"images/s": statistics.median(speeds)}


def pairs_of_seeds(
    one: Sequence[Log], other: Sequence[Log], split: str
) -> list[tuple[float, float]]:
    """Returns the errors of two nets with each seed that both have been trained with."""
    found, beside = (
        dict(zip((log.header["seed"] for log in logs), errors(logs, split), strict=True))
        for logs in (one, other)
    )
    return [(found[seed], beside[seed]) for seed in found if seed in beside]


def mean_norms(logs: Sequence[Log], when: str) -> list[float]:
    """Returns each layer's norm, from the images on: the mean over seeds."""
    found = [log.header["gradients"][when] for log in logs]
    return [statistics.mean(norms[layer] for norms in found) for layer in found[0]]


def gradient_row(name: str, logs: Sequence[Log]) -> pages.Row:
    row: pages.Row = {"net": name}
    for when in logs[0].header["gradients"]:
        *convolutions, _ = mean_norms(logs, when)
        row[f"{when}: first layer"] = convolutions[0]
        row[f"{when}: all (median, lowest, highest)"] = [
            statistics.median(convolutions), min(convolutions), max(convolutions)
        ]  # fmt: skip
    return row


def findings(logs: Mapping[str, Sequence[Log]], depths: Sequence[int]) -> list[str]:
    """Says of each kind how its deepest net does beside its shallowest, and how its gradients."""
    lines, (low, high) = [], (depths[0], depths[-1])
    for kind in ("plain", "residual"):
        shallow, deep = (logs.get(f"{kind}{depth}", []) for depth in (low, high))
        if not pairs_of_seeds(shallow, deep, "eval"):
            continue
        for split, what in (("eval", "Test"), ("train", "Training")):
            pairs = pairs_of_seeds(shallow, deep, split)
            before, after = map(statistics.mean, zip(*pairs, strict=True))
            worse = sum(after > before for before, after in pairs)
            lines.append(
                f"- {what} error of the {kind} net, from {low} to {high} layers: {before:.2f} % to"
                f" {after:.2f} %, higher with {worse} of {len(pairs)} seeds."
            )
        ratios = {}
        for when in deep[0].header["gradients"]:
            first, *_, last, _ = mean_norms(deep, when)
            ratios[when] = first / last
            lines.append(
                f"- Gradients of the {kind} net of {high} layers, {when}: {pages.cell(first)} in"
                f" the first layer, {pages.cell(first / last)} times that of the last convolution."
            )
        trains_worse = worse == len(pairs)  # of the training error, which came last
        if trains_worse and min(ratios["start"], ratios["end"]) > VANISHED:
            lines.append(
                f"- So the deeper {kind} net trains worse although its gradients do not vanish on"
                " their way to the first layer, neither at the start nor at the end."
            )
    return lines


def gains(logs: Mapping[str, Sequence[Log]], depths: Sequence[int]) -> list[str]:
    """Says how much less the residual net's errors are at each depth, mean over shared seeds."""
    lines = []
    for split, what in (("eval", "test"), ("train", "training")):
        gaps = []
        for depth in depths:
            plain, residual = (logs.get(f"{kind}{depth}", []) for kind in ("plain", "residual"))
            if gap := [more - less for more, less in pairs_of_seeds(plain, residual, split)]:
                gaps.append(f"{statistics.mean(gap):+.2f} at {depth} layers")
        lines += [f"- Plain less residual, {what} error in points: {', '.join(gaps)}."] * bool(gaps)
    return lines


def draw(logs: Mapping[str, Sequence[Log]], depths: Sequence[int], path: Path) -> None:
    """Draws errors against epochs, above, and gradient norms against layers, as an SVG.

    Raises:
      UserError: matplotlib is not installed.
    """
    with drawing.svg(path, 9, 7) as figure:
        grid = figure.subplots(2, 2, sharey="row")
        for column, kind in enumerate(("plain", "residual")):
            above, below = grid[0][column], grid[1][column]
            for number, depth in enumerate(depths):
                seeds = logs.get(f"{kind}{depth}")
                if not seeds:
                    continue
                color, label = f"C{number}", f"{depth} layers (n = {len(seeds)})"
                for split, style in (("eval", "-"), ("train", "--")):
                    epochs, top1 = curves.mean_curve([log.epochs for log in seeds], f"{split}_top1")
                    percent = [100 * (1 - value) for value in top1]
                    above.plot(epochs, percent, style, color=color, label=label)
                    label = None
                for when, style in zip(seeds[0].header["gradients"], ("-", ":", "--"), strict=True):
                    norms = dict(enumerate(mean_norms(seeds, when)[:-1], 1))
                    below.plot(*zip(*norms.items(), strict=True), style, color=color, linewidth=1)
            above.set(title=f"{kind}: test, and dashed training error", xlabel="epoch")
            title = f"{kind}: start, dashed end, dotted start without norm"
            below.set(title=title, xlabel="convolution, from the images on", yscale="log")
            if above.lines:
                above.legend(loc="upper right")
            above.grid(alpha=0.3)
            below.grid(alpha=0.3)
        grid[0][0].set_ylabel("error (%)")
        grid[1][0].set_ylabel("norm of the kernel's gradient")


def made(logs: Mapping[str, Sequence[Log]]) -> str:
    """Says when and with what the runs were made."""
    headers = [log.header for found in logs.values() for log in found]
    dates = sorted(header["date"][:10] for header in headers)
    cores = " or ".join(sorted({str(header["cores"]) for header in headers}))
    versions = " or ".join(sorted({header["versions"]["jax"] for header in headers}))
    kinds = " or ".join(sorted({header["devices"] for header in headers}))
    return f"Trained from {dates[0]} to {dates[-1]}: {kinds}, cores: {cores}; jax {versions}."


def write_page(
    output: Path, form: str, study: str, names: Sequence[str], depths: Sequence[int]
) -> None:
    """Makes page and, of the depths, the picture from the logs kept in a folder.

    Args:
      output: where the folder degradation/ is, and where page and picture go.
      form: of the study.
      study: which.
      names: of its variants, in the order of the rows.
      depths: of the form.

    Raises:
      UserError: it has none, or matplotlib is not installed.
    """
    folder = output / "degradation" / form / study
    kept = read_kept(folder)
    logs = {name: kept[name] for name in names if name in kept}
    if not logs:
        raise UserError(f"{folder} has no logs: train with --data=DIR --work=DIR")
    default = (form, study) == ("fashion_mnist", "depth")
    name = "degradation" if default else f"degradation_{study}_{form}"
    flags = "" if default else f" --form={form} --study={study}"
    facts = {"title": "Degradation", "about": "degradation"}
    facts["command"] = f"python -m benchmarks.degradation{flags} --data=DIR --work=DIR"
    tables = {"Errors after the last epoch": [error_row(*item) for item in logs.items()]}
    tables["Norms of gradients"] = [gradient_row(*item) for item in logs.items()]
    lines = []
    if study == "depth":
        draw(logs, depths, output / f"{name}.svg")
        facts["picture"] = f"{name}.svg"
        lines = ["", "## What it shows", ""]
        lines += gains(logs, depths) + findings(logs, depths)
    lines += ["", made(logs)]
    text = pages.page(facts | {"tables": tables})
    (output / f"{name}.md").write_text(text + "".join(f"{line}\n" for line in lines))
