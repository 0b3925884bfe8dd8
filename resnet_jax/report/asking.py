"""What a run's network answers: on the whole evaluation split, or on the images that it kept."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax import data, run, scoring, thumbnails
from resnet_jax.data.augment.transforms import normalise
from resnet_jax.data.sources.imagenet import readable
from resnet_jax.description import Description
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.models import ResNet
from resnet_jax.models.pools import global_mean
from resnet_jax.run_files import EVALUATION
from resnet_jax.thumbnails import Thumbnails
from resnet_jax.training.answers import Answers
from resnet_jax.training.reporting.display import Display

NOT_THERE = "The evaluation images are not there"
_BATCH, _LARGEST_BATCH = 32, 256


@dataclasses.dataclass(frozen=True)
class Look:
    """What a network makes of images.

    Attributes:
      answers: float32 [n, K], probabilities.
      features: float32 [n, F], what the classifier sees.
      heat: float32 [n, h, w], Grad-CAM of the answer, at least 0.
    """

    answers: np.ndarray
    features: np.ndarray
    heat: np.ndarray


@dataclasses.dataclass(frozen=True)
class Asked:
    """A run's network with the images that it can still be asked about.

    Attributes:
      model, variables: the network.
      step: of its checkpoint.
      classes: their names.
      why_gone: why the whole split is not there; None: it is.
      answers: to every image of the split, or to those that were kept; None: there are neither.
      scores: of the whole split; {} where it is not there.
      take: places in the split -> the images there; None: there are none.
      look: images uint8 [n, H, W, C] -> what the network makes of them.
    """

    model: ResNet
    variables: dict[str, Any]
    step: int
    classes: tuple[str, ...]
    why_gone: str | None
    answers: Answers | None
    scores: dict[str, Any]
    take: Callable[[np.ndarray], Thumbnails] | None
    look: Callable[[np.ndarray], Look]


def ask(workdir: str, step: int, data_dir: str | None, display: Display) -> Asked:
    """Reads a run's network, and asks it about all of the images that are there.

    Args:
      workdir: of the run.
      step: of the checkpoint.
      data_dir: where the data is; None: where it was.
      display: told what goes on.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    config, classes = run.read_config(workdir), run.read_classes(workdir)
    if data_dir is not None:
        data.check_is_mounted("--data_dir", data_dir)
        config.data.dir = data_dir
    # The batch changes no score; that of many devices may not fit in one.
    config.eval_batch_size = min(config.eval_batch_size or config.batch_size, _LARGEST_BATCH)
    experiment = Experiment(config, display.warn)
    model, variables, description = run.restore(workdir, step, mesh=experiment.mesh)
    parts = {"model": model, "variables": variables, "step": step, "classes": readable(classes)}
    look = make_look(model, variables, description)
    why_gone = _why_gone(workdir, experiment, classes)
    if why_gone is None:
        loader = experiment.eval_loader
        display.say(f"asking about {len(loader.source):,} images: {_named(loader.source)}")
        scores, answers = scoring.score(experiment, model, variables, display)
        take = functools.partial(thumbnails.take, loader)
        return Asked(**parts, why_gone=None, answers=answers, scores=scores, take=take, look=look)
    display.say(f"{NOT_THERE}: {why_gone}")
    kept = thumbnails.read(workdir)
    if kept is None:
        return Asked(**parts, why_gone=why_gone, answers=None, scores={}, take=None, look=look)
    return Asked(
        **parts,
        why_gone=why_gone,
        answers=_answers_to(kept, look(kept.images)),
        scores={},
        take=lambda places: Thumbnails(
            *(rows[np.searchsorted(kept.places, places)] for rows in kept)
        ),
        look=look,
    )


def _named(source: data.Source) -> str:
    return f"{source.name} {source.split}"


def _why_gone(workdir: str, experiment: Experiment, classes: tuple[str, ...]) -> str | None:
    """Returns why a run's evaluation split is not there, None where it is."""
    try:
        source = experiment.eval_loader.source
        changes = run.data_changes(workdir, EVALUATION, source)
    except UserError as error:
        return str(error)
    if tuple(source.classes) != classes:
        changes = [f"it has {len(source.classes)} classes, not those {len(classes)} of the run"]
    if changes:
        return f"the images of {_named(source)} have changed: {'; '.join(changes)}"
    return None


def _answers_to(kept: Thumbnails, seen: Look) -> Answers:
    return Answers([kept.labels], [seen.answers.argmax(-1)], [seen.answers.max(-1)], [kept.places])


def make_look(
    model: ResNet, variables: dict[str, Any], description: Description
) -> Callable[[np.ndarray], Look]:
    """Returns the function from images uint8 [n, H, W, C] to what a network makes of them.

    Args:
      model, variables: the network.
      description: has the images' mean and deviation.
    """
    mean, std = (np.asarray(moment, np.float64) for moment in (description.mean, description.std))

    @jax.jit
    def step(variables: dict[str, Any], images: jax.Array) -> tuple[jax.Array, ...]:
        shown = normalise(images, mean, std, model.param_dtype)
        maps: Any = model.apply(variables, shown, train=False, method="features")
        last = list(maps.values())[-1].astype(jnp.float32)
        logits, features = head(variables["params"], last)
        return jax.nn.softmax(logits), features, grad_cam(variables["params"], last)

    def look(images: np.ndarray) -> Look:
        count = len(images)
        padded = np.concatenate([images, np.zeros((-count % _BATCH, *images.shape[1:]), np.uint8)])
        batches = [
            jax.device_get(step(variables, padded[start : start + _BATCH]))
            for start in range(0, len(padded), _BATCH)
        ]
        return Look(*(np.concatenate(rows)[:count] for rows in zip(*batches, strict=True)))

    return look


def head(params: Any, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns logits [N, K] and features [N, F] of the map of the last stage, [N, h, w, F]."""
    features = global_mean(last)
    return features @ params["fc"]["kernel"] + params["fc"]["bias"], features


def grad_cam(params: Any, last: jax.Array) -> jax.Array:
    """Returns where the map of the last stage speaks for the answer, [N, h, w], at least 0.

    The channels are weighted by the mean gradient of the answer's logit (Selvaraju et al. 2017,
    "Grad-CAM", equations 1 and 2).
    """

    def chosen(last: jax.Array) -> jax.Array:
        return head(params, last)[0].max(-1).sum()

    weights = jax.grad(chosen)(last).mean((1, 2))
    return jax.nn.relu(jnp.einsum("nhwc,nc->nhw", last, weights))
