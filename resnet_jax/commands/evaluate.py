"""`--mode=evaluate`: score a run's checkpoint on its evaluation split again."""

import json

from absl import flags

from resnet_jax import data, run
from resnet_jax.commands import Arguments, Verb
from resnet_jax.distributed.mesh import is_lead
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.training import memory
from resnet_jax.training.evaluation import evaluate as score
from resnet_jax.training.reporting.display import Display


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "the run", flag_values=values)
    flags.DEFINE_string("which", "best", "the checkpoint: best, last or a step", flag_values=values)
    flags.DEFINE_integer(
        "batch_size", None, "images a step; default: the run's", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string(
        "data_dir", None, "where the data is, if not where it was", flag_values=values
    )


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
    prepare_runtime(config.precision, config.deterministic)
    display = Display(silent=not is_lead())
    experiment = Experiment(config, display.warn)
    _, variables, description = run.restore(workdir, which, mesh=experiment.mesh)
    loader = experiment.eval_loader
    experiment.check_processes(loader)
    if tuple(loader.source.classes) != description.classes:
        raise UserError(
            f"--workdir={workdir} was trained on {len(description.classes)} classes that are not "
            f"the {len(loader.source.classes)} of {loader.source.name}: give --data_dir of the "
            "same data set"
        )
    with Signals(silent=not is_lead()) as signals:
        batches = experiment.batches(loader, 0, len(loader))
        display.start(f"evaluating step {description.step}", len(loader.source), unit="image")
        # A signal ends the process at once: there is nothing to save, so none to stop comes back.
        requests = Requests(signals, experiment.mesh)
        with memory.explaining(
            lambda: memory.evaluation_out_of_memory("--batch_size", loader.batch_size)
        ):
            scored, _ = score(experiment.eval_step, variables, batches, requests, display.tick)
        display.stop()
    record = {
        "split": loader.source.split,
        "examples": scored.examples,
        **scored.means(),
        "step": description.step,
    }
    display.say(json.dumps(record))


def main(arguments: Arguments) -> None:
    evaluate(
        arguments.required("workdir", "the directory of a run"),
        which=arguments.which,
        batch_size=arguments.batch_size,
        data_dir=arguments.data_dir,
    )


VERB = Verb("scores a run again, on any checkpoint, batch size and devices", main, define_flags)
