"""`--mode=evaluate`: score a run's checkpoint, or weights from elsewhere, on labelled images."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from resnet_jax import classifier, data, run
from resnet_jax import config as config_lib
from resnet_jax.commands import (
    Arguments,
    Verb,
    define_crop_flag,
    define_network_flags,
    made_directory,
)
from resnet_jax.description import Description
from resnet_jax.distributed.mesh import put_replicated
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.run_files import EVALUATION
from resnet_jax.scoring import AS_THE_RECIPE, How, Subject, score_all


def define_flags(values: flags.FlagValues) -> None:
    define_network_flags(values)
    define_crop_flag(values)
    flags.DEFINE_integer(
        "batch_size",
        None,
        "images a step; default: the run's, for weights 64",
        lower_bound=1,
        flag_values=values,
    )
    for name, meaning in (
        ("split", "the split to score; default: the run's"),
        ("data_dir", "where the data is, if not where it was"),
        ("data_name", "another data set of the same classes; default for weights: folder"),
        ("class_map", "a file that says which of the network's classes the data's are"),
        ("output_dir", "where each class's accuracy and the confusion matrix go"),
    ):
        flags.DEFINE_string(name, None, meaning, flag_values=values)
    flags.DEFINE_list(
        "eval_size",
        None,
        "sides in pixels to score at, such as 224,288; default: the network's",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "mirror", False, "average over each image and its mirror image", flag_values=values
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
    how: How = AS_THE_RECIPE,
    output_dir: str | None = None,
    accept_data_change: bool = False,
) -> None:
    """Scores a checkpoint; prints a table and, for each size, one JSON object.

    Args:
      workdir: of the run.
      which: "best", "last" or a step; of several processes, process 0 picks.
      batch_size: images a step, over all devices; any number. None: the recipe's.
      images: to score.
      how: to score them.
      output_dir: where each class's accuracy and the confusion matrix go; None: nowhere.
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
    step = run.agree_on_step(run.open_checkpoints(workdir, config), which)

    def changes(source: data.Source) -> list[str]:
        found = run.data_changes(workdir, EVALUATION, source)
        if found and images == Images() and not accept_data_change:
            raise UserError(
                f"--workdir={workdir}: the images of {source.name} {source.split} have changed "
                f"since the run began: {'; '.join(found)}: give --data_dir of what they were, name "
                "the split that is meant by --split, or score them by --accept_data_change"
            )
        return found

    score_all(
        Subject(
            f"--workdir={workdir}",
            config,
            run.read_classes(workdir),
            {"step": step},
            changes,
            lambda mesh: run.restore(workdir, step, mesh=mesh)[:2],
        ),
        how,
        output_dir,
    )


def evaluate_weights(
    network: tuple[ResNet, dict[str, Any], Description],
    *,
    batch_size: int | None = None,
    images: Images = Images(),
    how: How = AS_THE_RECIPE,
    output_dir: str | None = None,
) -> None:
    """Scores a network that others trained, as `evaluate` does a checkpoint.

    Args:
      network: the module, its variables, and what they are.
      images: to score; without a name those of a folder.
      batch_size, how, output_dir: as for `evaluate`.

    Raises:
      UserError: there is no such data, or it has other classes.
    """
    model, variables, description = network
    config = config_lib.defaults()
    config.data.update(**description.data_fields())
    config.eval_batch_size = batch_size or classifier.BATCH_SIZE
    if images.name is None:
        images = dataclasses.replace(images, name="folder")
        if images.directory is None:
            raise UserError(
                "--data_dir is missing: with --weights, name the folder of the images to score, or"
                " another data set by --data_name"
            )
    images.set_in(config)

    def read(mesh: jax.sharding.Mesh) -> tuple[ResNet, dict[str, Any]]:
        return model, put_replicated(mesh, jax.device_get(variables))

    name, classes = f"--weights={description.source}", tuple(description.classes)
    origin = {"weights": description.source}
    score_all(Subject(name, config, classes, origin, lambda source: [], read), how, output_dir)


def main(arguments: Arguments) -> None:
    images = Images(arguments.split, arguments.data_dir, arguments.data_name)
    how = How(
        _sizes(arguments.eval_size or ()),
        arguments.eval_crop,
        arguments.mirror,
        arguments.class_map,
    )
    common = {
        "batch_size": arguments.batch_size,
        "images": images,
        "how": how,
        "output_dir": arguments.output_dir,
    }
    if arguments.output_dir is not None:
        made_directory("output_dir", arguments.output_dir)
    named = classifier.Named.of(arguments)
    if arguments.weights is None:
        evaluate(
            arguments.workdir,
            which=arguments.which,
            accept_data_change=arguments.accept_data_change,
            **common,
        )
    else:
        if arguments.accept_data_change:
            raise UserError("--accept_data_change has no effect with --weights; leave it out")
        prepare_runtime("float32")
        evaluate_weights(named.load(), **common)


def _sizes(texts: Sequence[str]) -> tuple[int, ...]:
    for text in texts:
        fault = "must be whole numbers of pixels"
        if text.isdecimal():
            fault = data.FIELDS["eval_size"].fault(int(text))
        if fault:
            raise UserError(f"--eval_size={','.join(texts)}: {fault}")
    return tuple(map(int, texts))


VERB = Verb(
    "scores a run or weights on labelled images, on any batch size and devices", main, define_flags
)
