"""The network that teaches another: read, held against the run, and shown the run's own images."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax.errors import UserError
from resnet_jax.initial import read_weights_of, same_classes
from resnet_jax.models import create_model
from resnet_jax.models.depths import first_kernel
from resnet_jax.models.resnet import ResNet
from resnet_jax.training.distillation import Distillation

_FIELD = "config.distill.teacher"


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network.

    Attributes:
      model: it computes in the run's precision.
      variables: {"params", "batch_stats"}.
      moments: mean and deviation that its images are normalised by; None: as those of the run.
    """

    model: ResNet
    variables: Mapping[str, Any]
    moments: tuple[Sequence[float], Sequence[float]] | None

    def distillation(self, config: ConfigDict) -> Distillation:
        """Returns what it adds to a step of a run, whose `data.mean` and `data.std` are filled.

        It sees the pixels that the run's network sees, after every augmentation, normalised as it
        is used to.
        """
        scale, shift = self._renormalisation(config.data.mean, config.data.std)

        def teach(variables: Any, images: jax.Array) -> Any:
            if scale is not None:
                own, offset = jnp.asarray(scale, images.dtype), jnp.asarray(shift, images.dtype)
                images = images * own + offset
            return self.model.apply(variables, images, train=False)

        return Distillation(teach, config.distill.temperature, config.distill.weight)

    def _renormalisation(
        self, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        if self.moments is None or self.moments == (tuple(mean), tuple(std)):
            return None, None
        own_mean, own_std = (np.asarray(moment, np.float64) for moment in self.moments)
        return np.asarray(std) / own_std, (np.asarray(mean) - own_mean) / own_std


def read_teacher(
    config: ConfigDict, image_shape: tuple[int, int, int], classes: Sequence[str]
) -> Teacher:
    """Reads the teacher of a recipe.

    Args:
      config: the recipe, in which the teacher's digest is filled.
      image_shape: [H, W, C] of the images.
      classes: the names of the data's classes.

    Raises:
      UserError: there is nothing to read, it has other classes or channels, needs larger images,
        or is not what the run began with.
    """
    fields, (height, width, channels) = config.distill, image_shape
    like = None
    if fields.network is not None:
        like = create_model(fields.network, num_classes=config.model.num_classes)
    read = read_weights_of(fields.teacher, like, channels, field=_FIELD)
    model = read.model or like
    assert model is not None, "a file whose network is not named was refused"
    if read.model is None and not read.has_head:
        raise UserError(
            f"{_FIELD} = {fields.teacher!r}: its classifier has not the"
            f" {config.model.num_classes} classes of the run; take a teacher that has"
        )
    if not same_classes(read, config.model.num_classes, classes):
        raise UserError(
            f"{_FIELD} = {fields.teacher!r}: its {model.num_classes} classes are not the"
            f" {len(classes)} of the data; take a teacher of the same classes"
        )
    found = first_kernel(read.variables["params"]).shape[2]
    if found != channels:
        raise UserError(
            f"{_FIELD} = {fields.teacher!r}: it takes images of {found} channels, these have"
            f" {channels}; take a teacher of such images"
        )
    side, least = min(height, width, *config.data.progressive_sizes), model.smallest_image()
    if side < least:
        raise UserError(
            f"{_FIELD} = {fields.teacher!r}: its strides need images of {least} pixels a side, the"
            f" smallest of the run have {side}; take a teacher of smaller strides, or larger images"
        )
    if fields.digest not in (None, read.digest):
        raise UserError(
            f"{_FIELD} = {fields.teacher!r}: no longer the weights that the run began with"
            f" (SHA-256 {fields.digest[:12]}, now {read.digest[:12]}); give it those, or another"
            " --workdir"
        )
    fields.digest = read.digest
    dtype, param_dtype = config_lib.PRECISIONS[config.precision]
    moments = None
    if read.description is not None:
        moments = tuple(read.description.mean), tuple(read.description.std)
    model = model.clone(dtype=dtype, param_dtype=param_dtype)
    return Teacher(model, read.variables, moments)
