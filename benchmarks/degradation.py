"""Depth, shortcuts and their kin over seeds: He et al. 2015, figures 4 and 6, again.

    python -m benchmarks.degradation --data=DIR --work=DIR                # trains, writes the page
    python -m benchmarks.degradation                                      # page from the logs kept
    python -m benchmarks.degradation --form=cifar10 --data=DIR --work=DIR # 32x32, for a GPU
    python -m benchmarks.degradation --study=shortcuts --data=DIR --work=DIR

All variants of a study train with seed 0 first, then with seed 1, and so on; a finished run leaves
a small log in results/degradation/, and the page is made again. The same command goes on where it
was stopped. DIR of --data holds Fashion-MNIST's published IDX files, or CIFAR-10's.
"""

import argparse
import dataclasses
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from benchmarks import pages
from benchmarks.fashion_mnist import Log, read_kept, write
from resnet_jax import config as config_lib
from resnet_jax import run
from resnet_jax.commands.train import train
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.distributed.signals import Interrupted
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.report import learning
from resnet_jax.training.loss import make_loss
from resnet_jax.training.reporting import curves, logbook
from resnet_jax.training.step import gradients_of

Fields = dict[str, Any]
GRADIENT_BATCHES = 4
VANISHED = 0.1  # a first layer's norm beside the last convolution's


@dataclasses.dataclass(frozen=True)
class Form:
    """Where a study is made: the recipe's fields, the depths, and the one of the other studies."""

    fields: Fields
    depths: tuple[int, ...]
    depth: int


FORMS = {
    "fashion_mnist": Form(
        {"data.name": "idx", "data.image_size": 14, "data.train_split": "train[:20000]"}
        | {"data.pad_and_crop": 1, "num_epochs": 8.0},
        depths=(8, 14, 20, 32),
        depth=20,
    ),
    # 64,000 steps of 128 images.
    "cifar10": Form(
        {"data.name": "cifar", "data.pad_and_crop": 4, "num_epochs": 64_000 / (50_000 // 128)},
        depths=(20, 32, 44, 56, 110),
        depth=56,
    ),
}


def stages(depth: int, convolutions: int = 2) -> Fields:
    """Returns the fields of three equal stages, of blocks of so many convolutions."""
    return {"model.stage_sizes": ((depth - 2) // (3 * convolutions),) * 3}


def by_depth(form: Form) -> dict[str, Fields]:
    nets = [(kind, depth) for depth in form.depths for kind in ("plain", "residual")]
    # "Slightly too large to start converging": He et al. 2015, section 4.2, on 110 layers.
    warmup = {"schedule.warmup_epochs": 1.0, "schedule.warmup_factor": 0.1}
    return {
        f"{kind}{depth}": {"model.residual": kind == "residual"}
        | stages(depth)
        | (warmup if depth >= 110 else {})
        for kind, depth in nets
    }


def by_shortcut(form: Form) -> dict[str, Fields]:
    return {f"shortcut{kind}": {"model.shortcut": kind} | stages(form.depth) for kind in "ABC"}


def by_version(form: Form) -> dict[str, Fields]:
    shared = {"model.block": "bottleneck", "model.shortcut": "B"} | stages(form.depth, 3)
    return {version: {"model.version": version} | shared for version in ("v1", "v1.5", "v2")}


def by_zero_init(form: Form) -> dict[str, Fields]:
    starts = {"branches_start_at_zero": True, "branches_start_random": False}
    return {name: {"model.zero_init": zero} | stages(form.depth) for name, zero in starts.items()}


STUDIES = {
    "depth": by_depth,
    "shortcuts": by_shortcut,
    "versions": by_version,
    "zero_init": by_zero_init,
}


def recipe(fields: Mapping[str, Any], data: Path, seed: int) -> ConfigDict:
    """Returns the recipe of He et al. 2015, section 4.2, with some fields set."""
    config = config_lib.defaults()
    config.seed, config.batch_size, config.eval_batch_size = seed, 128, 500
    config.model.name, config.model.zero_init = "cifar_resnet20", False
    config.data.dir, config.data.flip = str(data), True
    config.optimizer.weight_decay, config.optimizer.decay_norm_and_bias = 1e-4, True
    config.schedule.base_lr, config.schedule.base_batch_size = 0.1, None
    for dotted, value in fields.items():
        config_lib.set_field(config, dotted, value)
    config.schedule.boundaries = (config.num_epochs / 2, config.num_epochs * 3 / 4)
    config_lib.validate(config)
    return config


def norms_by_layer(experiment: Experiment, *found: Mapping[str, Any]) -> list[dict[str, float]]:
    """Returns, for each of some variables, the norm of the loss's gradient in each layer's kernel.

    Layers stand as the images meet them; projections on shortcuts are left out. A norm is the mean
    over `GRADIENT_BATCHES` training batches, in training mode.
    """
    loss = make_loss(experiment.config.loss)

    @jax.jit
    def norms(state: Any, batch: Any) -> Any:
        images, targets = experiment.augment(batch, state.seed)
        examples = {"images": images, "targets": targets, "mask": batch["mask"]}
        gradients = gradients_of(state, examples, experiment.model, loss)[0]
        kernels = flatten_dict(gradients, sep=".")
        return {
            name.removesuffix(".kernel"): jnp.linalg.norm(kernel.ravel())
            for name, kernel in kernels.items()
            if name.endswith("kernel") and "downsample" not in name
        }

    def mean_norms(variables: Mapping[str, Any]) -> dict[str, float]:
        state = experiment.create_state().replace(**variables)
        batches = [
            shard_batch(experiment.mesh, experiment.train_loader[number])
            for number in range(GRADIENT_BATCHES)
        ]
        rows = [jax.device_get(norms(state, batch)) for batch in batches]
        layers = sorted(rows[0], key=_place)
        return {name: float(f"{np.mean([row[name] for row in rows]):.4g}") for name in layers}

    return [mean_norms(variables) for variables in found]


def _place(name: str) -> tuple[bool, list[Any]]:
    """Returns what orders layers as the images meet them."""
    return name.startswith("fc"), [
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)
    ]


def gradients(config: ConfigDict, workdir: Path) -> dict[str, dict[str, float]]:
    """Returns a run's norms at the start, at the start of the net without norm, and at the end."""
    with_norm = Experiment.for_training(config)
    bare_config = config_lib.copy_of(with_norm.config)
    bare_config.model.norm = "none"
    bare = Experiment.for_training(bare_config)
    end = run.restore(workdir, "last", mesh=with_norm.mesh)[1]
    start, trained = norms_by_layer(with_norm, with_norm.random_variables(), end)
    (without,) = norms_by_layer(bare, bare.random_variables())
    for experiment in (with_norm, bare):
        experiment.train_loader.close()
        experiment.eval_loader.close()
    return {"start": start, "start without normalisation": without, "end": trained}


def keep(name: str, fields: Fields, config: ConfigDict, workdir: Path, folder: Path) -> None:
    """Keeps the log of a finished run."""
    lines, variables = logbook.read(workdir), run.restore(workdir, "last")[1]
    last = json.loads((workdir / "environment.json").read_text())[-1]
    header = {"name": name, "seed": config.seed, "fields": fields, "cores": last["cores"]}
    header["parameters"] = sum(x.size for x in jax.tree.leaves(variables["params"]))
    header |= {"train_images": last["train_images"], "batch_size": config.batch_size}
    header |= {"num_epochs": config.num_epochs, "date": last["time"], "commit": last["commit"]}
    header |= {"versions": last["packages"], "devices": last["devices"]}
    header["gradients"] = gradients(config, workdir)
    write(Log(header, curves.by_epoch(lines, config.batch_size)), folder)


def errors(logs: Sequence[Log], kind: str) -> list[float]:
    """Returns the last errors of runs in percent, "train" or "eval"."""
    return [100 * (1 - log.epochs[-1][f"{kind}_top1"]) for log in logs]


def spread(values: Sequence[float]) -> str:
    """Returns the mean and, of several, the sample standard deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def error_row(name: str, logs: Sequence[Log]) -> pages.Row:
    header = logs[0].header
    speeds = [
        log.epochs[-1]["step"] * header["batch_size"] / log.epochs[-1]["steady_seconds"]
        for log in logs
    ]
    row = {"net": name, "parameters": header["parameters"], "images": header["train_images"]}
    row |= {"epochs": f"{header['num_epochs']:g}"}
    row |= {"training error (%)": spread(errors(logs, "train"))}
    row |= {"test error (%)": spread(errors(logs, "eval")), "n": len(logs)}
    return row | {"images/s": statistics.median(speeds)}


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


def findings(logs: Mapping[str, Sequence[Log]], form: Form) -> list[str]:
    """Says of each kind how its deepest net does beside its shallowest, and how its gradients."""
    lines, (low, high) = [], (form.depths[0], form.depths[-1])
    for kind in ("plain", "residual"):
        shallow, deep = (logs.get(f"{kind}{depth}", []) for depth in (low, high))
        if not shallow or not deep:
            continue
        for split, what in (("eval", "Test"), ("train", "Training")):
            pairs = list(zip(errors(shallow, split), errors(deep, split), strict=False))
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
        if worse == len(pairs) and min(ratios["start"], ratios["end"]) > VANISHED:
            lines.append(
                f"- So the deeper {kind} net trains worse although its gradients do not vanish on"
                " their way to the first layer, neither at the start nor at the end."
            )
    return lines


def draw(logs: Mapping[str, Sequence[Log]], form: Form, path: Path) -> None:
    """Draws errors against epochs, above, and gradient norms against layers, as an SVG.

    Raises:
      UserError: matplotlib is not installed.
    """
    with learning.drawing(path, 9, 7) as figure:
        grid = figure.subplots(2, 2, sharey="row")
        for column, kind in enumerate(("plain", "residual")):
            above, below = grid[0][column], grid[1][column]
            for number, depth in enumerate(form.depths):
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


def write_page(output: Path, form: str, study: str) -> None:
    """Makes page and, of the depths, the picture from the logs kept in a folder.

    Raises:
      UserError: it has none, or matplotlib is not installed.
    """
    folder = output / "degradation" / form / study
    kept = read_kept(folder)
    logs = {name: kept[name] for name in STUDIES[study](FORMS[form]) if name in kept}
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
        draw(logs, FORMS[form], output / f"{name}.svg")
        facts["picture"] = f"{name}.svg"
        lines = ["", "## What it shows", "", *findings(logs, FORMS[form])]
    lines += ["", made(logs)]
    text = pages.page(facts | {"tables": tables})
    (output / f"{name}.md").write_text(text + "".join(f"{line}\n" for line in lines))


def measure(options: argparse.Namespace) -> None:
    """Trains what is not kept yet, seed by seed."""
    form, folder = FORMS[options.form], options.output / "degradation" / options.form
    for seed in options.seeds:
        for name, changes in STUDIES[options.study](form).items():
            if (folder / options.study / name / f"seed{seed}.jsonl").exists():
                continue
            config = recipe(form.fields | changes, options.data, seed)
            workdir = options.work / options.form / options.study / name / f"seed{seed}"
            print(f"{name}, seed {seed}", flush=True)
            train(config, str(workdir))
            keep(name, changes, config, workdir, folder / options.study)
            write_page(options.output, options.form, options.study)


def main(arguments: Sequence[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--study", choices=STUDIES, default="depth")
    parser.add_argument("--form", choices=FORMS, default="fashion_mnist")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--data", type=Path, help="the published files; without it, no training")
    parser.add_argument("--work", type=Path, help="where runs are kept")
    parser.add_argument("--output", type=Path, default=Path("results"), help="of logs and pages")
    parser.set_defaults(seeds=[0, 1, 2])
    options = parser.parse_args(arguments)
    if (options.data is None) != (options.work is None):
        parser.error("--data and --work belong together")
    try:
        if options.data is not None:
            measure(options)
        write_page(options.output, options.form, options.study)
    except Interrupted as interrupted:
        return interrupted.status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
