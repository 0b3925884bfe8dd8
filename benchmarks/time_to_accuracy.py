"""Trains a Fashion-MNIST recipe in PyTorch on the CPU, to set beside our own runs of it.

    python -m benchmarks.time_to_accuracy --config=configs/NAME.py [--config.field=value ...] \\
        --output=results

It wants the machine for itself, prints a line an epoch, and with --output keeps the log beside ours
and makes the page again: see `benchmarks.fashion_mnist` and `benchmarks.peers.pytorch_recipe`.
"""

import datetime
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from absl import app, flags
from ml_collections import config_flags

from benchmarks import fashion_mnist
from benchmarks.peers.pytorch_recipe import train
from resnet_jax.config import validate
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment

_CONFIG = config_flags.DEFINE_config_file("config", None, "the recipe")
_OUTPUT = flags.DEFINE_string("output", None, "folder of logs and page")


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise app.UsageError(f"{argv[1]!r} is not a flag: flags have the form --name=value")
    try:
        validate(_CONFIG.value)
        prepare_runtime(_CONFIG.value.precision)
        experiment = Experiment.for_training(_CONFIG.value)
        sizes = len(experiment.train_loader.source), len(experiment.eval_loader.source)
        variables = experiment.initial_variables()
        header = fashion_mnist.describe(experiment.config, sys.argv, variables, *sizes)
        header |= {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
        versions = {"python": platform.python_version(), "torch": version("torch")}
        header |= {"cores": torch.get_num_threads(), "versions": versions}
        log = fashion_mnist.Log(header, [])
        for epoch in train(experiment):
            print(epoch, flush=True)
            log.epochs.append(epoch)
        if _OUTPUT.value:
            fashion_mnist.write(log, Path(_OUTPUT.value, "fashion_mnist"), "torch_")
            fashion_mnist.write_page(Path(_OUTPUT.value))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
