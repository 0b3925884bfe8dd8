"""Evaluate: score a run's checkpoint on its evaluation split again."""

import json

from resnet_jax import data, parallel, run
from resnet_jax.commands import assembly, fit
from resnet_jax.errors import UserError
from resnet_jax.training.display import Display
from resnet_jax.training.evaluation import evaluate as score
from resnet_jax.training.interrupts import Interrupts, Wishes


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
    assembly.prepare_runtime(config)
    mesh = parallel.make_mesh()
    display = Display(silent=not parallel.is_lead())
    model, variables, description = run.restore(workdir, which, mesh=mesh)
    loader = assembly.make_loader(config, mesh, train=False, say=display.warn)
    assembly.check_processes(config, loader.source)
    if tuple(loader.source.classes) != description.classes:
        raise UserError(
            f"--workdir={workdir} was trained on {len(description.classes)} classes that are not the "
            f"{len(loader.source.classes)} of {loader.source.name}: give --data_dir of the same data set"
        )
    with Interrupts(silent=not parallel.is_lead()) as interrupts:
        feed = assembly.open_feed(config, loader, mesh, 0, len(loader))
        display.start(f"evaluating step {description.step}", len(loader.source), unit="image")
        step = assembly.eval_step(config, model, loader, mesh)
        # A signal ends the process at once: there is nothing to save, so no wish to stop can come back.
        with fit.explaining(lambda: fit.evaluation_out_of_memory("--batch_size", loader.batch_size)):
            means, _ = score(step, variables, feed, Wishes(interrupts, mesh), display.tick)
        display.stop()
    record = {
        "split": loader.source.split,
        "examples": means.examples,
        **means.means(),
        "step": description.step,
    }
    display.say(json.dumps(record))
