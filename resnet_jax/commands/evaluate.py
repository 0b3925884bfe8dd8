"""`--mode=evaluate`: score a run's checkpoint on its evaluation split again."""

import dataclasses

from absl import flags
from ml_collections import ConfigDict

from resnet_jax import data, run
from resnet_jax.commands import Arguments, Verb
from resnet_jax.distributed.mesh import is_lead
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.resolution import check_processes
from resnet_jax.run_files import EVALUATION
from resnet_jax.training import memory
from resnet_jax.training.evaluation import evaluate as score
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.reporting.logbook import to_json


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "the run", flag_values=values)
    flags.DEFINE_string("which", "best", "the checkpoint: best, last or a step", flag_values=values)
    flags.DEFINE_integer(
        "batch_size", None, "images a step; default: the run's", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string("split", None, "the split to score; default: the run's", flag_values=values)
    flags.DEFINE_string(
        "data_dir", None, "where the data is, if not where it was", flag_values=values
    )
    flags.DEFINE_string(
        "data_name", None, "another data set of the same classes", flag_values=values
    )
    flags.DEFINE_bool(
        "accept_data_change",
        False,
        "score the split though its images have changed since the run began",
        flag_values=values,
    )


@dataclasses.dataclass(frozen=True)
class Images:
    """Which images to score, where they are not those of the run; None: as the run has it.

    Attributes:
      split: the split, or a part of one.
      directory: where the data is.
      name: the data set.
    """

    split: str | None = None
    directory: str | None = None
    name: str | None = None

    def set_in(self, config: ConfigDict) -> None:
        """Sets the fields of a recipe that say which images are scored; raises `UserError`."""
        if self.directory is not None:
            data.check_is_mounted("--data_dir", self.directory)
            config.data.dir = self.directory
        if self.name is not None:
            # The splits of the run's own data set may not be there.
            config.data.name, config.data.eval_split = self.name, None
        if self.split is not None:
            config.data.eval_split = self.split
        data.check(config.data)


def evaluate(
    workdir: str,
    *,
    which: str = "best",
    batch_size: int | None = None,
    images: Images = Images(),
    accept_data_change: bool = False,
) -> None:
    """Scores a checkpoint and prints one JSON object: the images, their number, loss, top1, top5.

    Args:
      workdir: of the run.
      which: "best", "last" or a step; of several processes, process 0 picks.
      batch_size: images a step, over all devices; any number. None: the recipe's.
      images: to score.
      accept_data_change: whether to score a split whose images have changed since the run began.

    Raises:
      UserError: there is no such run, checkpoint or data, the data has other classes, or the images
        of the run have changed.
    """
    config = run.read_config(workdir)
    if batch_size is not None:
        config.eval_batch_size = batch_size
    images.set_in(config)
    prepare_runtime(config.precision, config.deterministic)
    display = Display(silent=not is_lead())
    checkpoints = run.open_checkpoints(workdir, config)
    step = run.agree_on_step(checkpoints, which)
    experiment = Experiment(config, display.warn)
    loader = experiment.eval_loader
    check_processes(config, loader)
    _check_images(workdir, loader.source, images, accept_data_change, display)
    _, variables, _ = run.restore(workdir, step, mesh=experiment.mesh)
    with Signals(silent=not is_lead()) as signals:
        batches = experiment.batches(loader, 0, len(loader))
        display.start(f"evaluating step {step}", len(loader.source), unit="image")
        # A signal ends the process at once: there is nothing to save, so none to stop comes back.
        requests = Requests(signals, experiment.mesh)
        with memory.explaining(
            lambda: memory.evaluation_out_of_memory("--batch_size", loader.batch_size)
        ):
            scored, _ = score(experiment.eval_step, variables, batches, requests, display.tick)
        display.stop()
    assert scored is not None
    record = {
        "data": loader.source.name,
        "data_dir": config.data.dir,
        "split": loader.source.split,
        "examples": scored.examples,
        **scored.means(),
        "step": step,
    }
    display.say(to_json(record))


def _check_images(
    workdir: str, source: data.Source, images: Images, accept_change: bool, display: Display
) -> None:
    """Checks that the images have the run's classes, and says where they are not the run's own."""
    classes = run.read_classes(workdir)
    if tuple(source.classes) != classes:
        raise UserError(
            f"--workdir={workdir} was trained on {len(classes)} classes that are not the "
            f"{len(source.classes)} of {source.name}: give --data_dir of the same data set"
        )
    changes = run.data_changes(workdir, EVALUATION, source)
    if changes and images == Images() and not accept_change:
        raise UserError(
            f"--workdir={workdir}: the images of {source.name} {source.split} have changed since "
            f"the run began: {'; '.join(changes)}: give --data_dir of what they were, name the "
            "split that is meant by --split, or score them by --accept_data_change"
        )
    display.say(
        f"scoring {len(source):,} images: {source.name} {source.split}"
        + (f"; not those that the run scored: {'; '.join(changes)}" if changes else "")
    )


def main(arguments: Arguments) -> None:
    evaluate(
        arguments.required("workdir", "the directory of a run"),
        which=arguments.which,
        batch_size=arguments.batch_size,
        images=Images(arguments.split, arguments.data_dir, arguments.data_name),
        accept_data_change=arguments.accept_data_change,
    )


VERB = Verb("scores a run again, on any checkpoint, batch size and devices", main, define_flags)
