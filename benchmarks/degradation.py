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
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from benchmarks import fashion_mnist
from benchmarks.degradation_page import write_page
from resnet_jax import config as config_lib
from resnet_jax import run, run_files
from resnet_jax.commands.train import train
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.distributed.signals import Interrupted
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.training.loss import make_loss
from resnet_jax.training.reporting import curves, logbook
from resnet_jax.training.step import gradients_of

Fields = dict[str, Any]
GRADIENT_BATCHES = 4


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


def gradients(with_norm: Experiment, end: Any) -> dict[str, dict[str, float]]:
    """Returns a run's norms at the start, at the start of the net without norm, and at the end.

    Args:
      with_norm: the run's experiment.
      end: the variables that it ended with, on the experiment's devices.
    """
    bare_config = config_lib.copy_of(with_norm.config)
    bare_config.model.norm = "none"
    bare = Experiment.for_training(bare_config)
    start, trained = norms_by_layer(with_norm, with_norm.random_variables(), end)
    (without,) = norms_by_layer(bare, bare.random_variables())
    bare.train_loader.close()
    bare.eval_loader.close()
    return {"start": start, "start without normalisation": without, "end": trained}


def keep(name: str, fields: Fields, config: ConfigDict, workdir: Path, folder: Path) -> None:
    """Keeps the log of a finished run."""
    experiment = Experiment.for_training(config)
    variables = run.restore(workdir, "last", mesh=experiment.mesh)[1]
    last = run_files.read_starts(epath.Path(workdir))[-1]
    header = {"name": name, "fields": fields}
    header |= fashion_mnist.facts(config, variables, last["train_images"])
    header |= {"date": last["time"], "cores": last["cores"], "commit": last["commit"]}
    header |= {"versions": last["packages"], "devices": last["devices"]}
    header["gradients"] = gradients(experiment, variables)
    experiment.train_loader.close()
    experiment.eval_loader.close()
    epochs = curves.by_epoch(logbook.read(workdir), config.batch_size)
    fashion_mnist.write(fashion_mnist.Log(header, epochs), folder)


def write(options: argparse.Namespace) -> None:
    """Makes the page of the study from the logs kept."""
    form = FORMS[options.form]
    names = list(STUDIES[options.study](form))
    write_page(options.output, options.form, options.study, names, form.depths)


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
            write(options)


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
        write(options)
    except Interrupted as interrupted:
        return interrupted.status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
