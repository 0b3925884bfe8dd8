"""Evaluate: score a run's checkpoint on its evaluation split again."""

import json

from resnet_jax import data, experiment, run
from resnet_jax.distributed.mesh import is_lead, make_mesh
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.training import memory
from resnet_jax.training.evaluation import evaluate as score
from resnet_jax.training.reporting.display import Display


def evaluate(
    workdir: str, *, which: str = "best", batch_size: int | None = None, data_dir: str | None = None
) -> None:
    """Scores a checkpoint and prints one JSON object: split, examples, loss, top1, top5, step.

    Args:
      workdir: of the run.
      which: "best", "last" or a step.
      batch_size: images a step, over all devices; any number. None: the recipe's.
      data_dir: where the data is now, if not where the recipe says.

    Raises:
      UserError: there is no such run, checkpoint or data, or the data has other classes.
    """
    config = run.read_config(workdir)
    if batch_size is not None:
        config.eval_batch_size = batch_size
    if data_dir is not None:
        data.check_is_mounted("--data_dir", data_dir)
        config.data.dir = data_dir
    experiment.prepare_runtime(config)
    mesh = make_mesh()
    display = Display(silent=not is_lead())
    model, variables, description = run.restore(workdir, which, mesh=mesh)
    loader = experiment.make_loader(config, mesh, train=False, say=display.warn)
    experiment.check_processes(config, loader.source)
    if tuple(loader.source.classes) != description.classes:
        raise UserError(
            f"--workdir={workdir} was trained on {len(description.classes)} classes that are not"
            f" the {len(loader.source.classes)} of {loader.source.name}: give --data_dir of the"
            " same data set"
        )
    with Signals(silent=not is_lead()) as interrupts:
        feed = experiment.open_feed(config, loader, mesh, 0, len(loader))
        display.start(f"evaluating step {description.step}", len(loader.source), unit="image")
        step = experiment.eval_step(config, model, loader, mesh)
        # A signal ends the process at once: there is nothing to save, so no wish to stop can come
        # back.
        with memory.explaining(
            lambda: memory.evaluation_out_of_memory("--batch_size", loader.batch_size)
        ):
            means, _ = score(step, variables, feed, Requests(interrupts, mesh), display.tick)
        display.stop()
    record = {
        "split": loader.source.split,
        "examples": means.examples,
        **means.means(),
        "step": description.step,
    }
    display.say(json.dumps(record))
