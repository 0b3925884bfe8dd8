"""Labelled images scored: a network, the images, how, and what is told of it."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import data
from resnet_jax.data.sources import classes as class_lists
from resnet_jax.data.sources.imagenet import readable
from resnet_jax.distributed.mesh import is_lead, jit_step
from resnet_jax.distributed.requests import Requests
from resnet_jax.distributed.signals import Signals
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.models import ResNet
from resnet_jax.resolution import check_processes
from resnet_jax.training import memory
from resnet_jax.training.answers import Answers
from resnet_jax.training.evaluation import evaluate
from resnet_jax.training.loss import LOSSES
from resnet_jax.training.reporting import scorecard
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.reporting.logbook import to_json
from resnet_jax.training.step import score_step


@dataclasses.dataclass(frozen=True)
class How:
    """How images are scored, where it is not as the network's recipe has it.

    Attributes:
      sizes: sides in pixels, each of which is scored; () for the network's.
      crop: share of the resized short side that is shown.
      mirror: whether to average over each image and its mirror image.
      class_map: a file that `data.sources.classes.read_map` reads.
    """

    sizes: tuple[int, ...] = ()
    crop: float | None = None
    mirror: bool = False
    class_map: str | None = None

    def of(self, config: ConfigDict) -> list[ConfigDict]:
        """Returns a copy of a recipe for each size."""
        copies = []
        for size in self.sizes or (None,):
            copy = config_lib.copy_of(config)
            if size is not None:
                copy.data.eval_size = size
            if self.crop is not None:
                copy.data.eval_crop = self.crop
            copies.append(copy)
        return copies


AS_THE_RECIPE = How()


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is scored.

    Attributes:
      name: of the run or the weights, for messages.
      config: the recipe, of which the data and the loss count.
      classes: the names of the network's classes.
      origin: where it is from, for the record.
      changes: a source -> a clause for each way in which it is not what the run scored.
      read: a mesh -> the network, and its variables on all devices.
    """

    name: str
    config: ConfigDict
    classes: tuple[str, ...]
    origin: dict[str, Any]
    changes: Callable[[data.Source], list[str]]
    read: Callable[[jax.sharding.Mesh], tuple[ResNet, dict[str, Any]]]


def score_all(subject: Subject, how: How, output_dir: str | None = None) -> None:
    """Scores the evaluation split at each size; prints tables and, for each size, a JSON object.

    Args:
      subject: what is scored.
      how: it is.
      output_dir: where each class's accuracy and the confusion matrix go; None: nowhere.

    Raises:
      UserError: there is no such data, or it has other classes.
    """
    display = Display(silent=not is_lead())
    records: list[dict[str, Any]] = []
    written: list[Path] = []
    for config in how.of(subject.config):
        experiment = Experiment(config, display.warn)
        loader = experiment.eval_loader
        source = loader.source
        if not records:
            check_processes(config, loader)
            members = _members(subject, source, how.class_map)
            changes = subject.changes(source)
            display.say(
                f"scoring {len(source):,} images: {source.name} {source.split}"
                + (f"; not those that the run scored: {'; '.join(changes)}" if changes else "")
            )
            model, variables = subject.read(experiment.mesh)
        record, answers = score(
            experiment, model, variables, display, members=members, mirror=how.mirror
        )
        records.append(record | subject.origin)
        if len(records) == 1:
            table = scorecard.per_class(answers, source.classes)
        if output_dir is not None and is_lead():
            written += scorecard.write(
                Path(output_dir), scorecard.named(record["eval_size"]), answers, source.classes
            )
        loader.close()
    for line in ["", *table, "", *scorecard.summary(records), ""]:
        display.say(line)
    if written:
        display.say(f"written: {', '.join(map(str, written))}")
        if not any(path.suffix == ".png" for path in written):
            display.say("no picture, which needs matplotlib: pip install 'flax-resnet[plot]'")
    for record in records:
        display.say(to_json(record))


def score(
    experiment: Experiment,
    model: ResNet,
    variables: dict[str, Any],
    display: Display,
    *,
    members: np.ndarray | None = None,
    mirror: bool = False,
) -> tuple[dict[str, Any], Answers]:
    """Returns the scores of a network on an experiment's evaluation split, and its answers.

    Args:
      experiment: has the images.
      model: the network.
      variables: its variables, on all devices.
      display: shows how far it is.
      members, mirror: as `step.score_step` takes them.
    """
    config, loader, answers = experiment.config, experiment.eval_loader, Answers()
    step = functools.partial(
        score_step,
        model=model,
        normalise=data.make_normalise(config.data, loader.source, dtype=model.param_dtype),
        loss=LOSSES[config.loss.name],
        mirror=mirror,
        members=members,
    )
    size = scorecard.size_of(loader.image_shape)
    with Signals(silent=not is_lead()) as signals:
        batches = experiment.batches(loader, 0, len(loader))
        display.start(f"evaluating at {scorecard.named(size)}", len(loader.source), unit="image")
        # A signal ends the process at once: there is nothing to save, so none to stop comes back.
        requests = Requests(signals, experiment.mesh)
        with memory.explaining(
            lambda: memory.evaluation_out_of_memory("--batch_size", loader.batch_size)
        ):
            scored, _ = evaluate(
                jit_step(experiment.mesh, step),
                variables,
                batches,
                requests,
                display.tick,
                answers,
            )
        display.stop()
    assert scored is not None
    record = {
        "data": loader.source.name,
        "data_dir": config.data.dir,
        "split": loader.source.split,
        "examples": scored.examples,
        **scored.means(),
        "calibration_error": answers.calibration_error(),
        "eval_size": size,
        "mirror": mirror,
    }
    return record, answers


def _members(subject: Subject, source: data.Source, class_map: str | None) -> np.ndarray | None:
    """Returns which of the network's classes those of a source are, None for the same ones.

    Returns:
      int [L, M] as `step.score_step` takes it.

    Raises:
      UserError: they are others, and no map says which.
    """
    ours, theirs = readable(source.classes), readable(subject.classes)
    if class_map is None:
        if ours != theirs:
            raise UserError(
                f"{subject.name} was trained on {len(theirs)} classes that are not the "
                f"{len(ours)} of {source.name}: give --data_dir of the same data set, or a file "
                "that says which are which by --class_map"
            )
        return None
    found = class_lists.read_map(Path(class_map), ours, theirs)
    members = np.full((len(found), max(map(len, found))), -1)
    for row, places in zip(members, found, strict=True):
        row[: len(places)] = places
    return members
