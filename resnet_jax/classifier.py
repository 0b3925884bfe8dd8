"""A trained network that answers: which classes a picture shows, and how sure it is."""

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from resnet_jax import config as config_lib
from resnet_jax import data, pretrained, run
from resnet_jax.data.images.preprocess import faults_of_pictures, listed, preprocess
from resnet_jax.data.sources import classes as class_lists
from resnet_jax.data.sources.pictures import Pictures
from resnet_jax.description import Description
from resnet_jax.distributed.mesh import jit_step, make_mesh, replicated, shard_batch
from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.training.step import forward

if TYPE_CHECKING:
    from jaxtyping import Float

BATCH_SIZE, TOP = 64, 5


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of an image.

    Attributes:
      classes: names, the most probable first.
      probabilities: theirs, by softmax over all classes of the network.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


class Classifier:
    """A trained network that names what pictures show.

    Images are paths, PIL images or uint8 arrays ([H, W] or [H, W, C]), in any mixture; or one of
    these alone; or an array [N, H, W, C]. They are decoded by threads while the devices compute,
    and split over all devices of this process. A program is compiled once for each size of batch:
    the last batch is filled up, and a small one to the next power of two.

    Args:
      model: the Flax module.
      variables: its "params" and "batch_stats".
      description: how its images are prepared, and the names of its classes.
      batch_size: images a step, at most.

    Attributes:
      model: as given.
      variables: on all devices of this process.
      description: as given.
    """

    def __init__(
        self,
        model: ResNet,
        variables: dict[str, Any],
        description: Description,
        *,
        batch_size: int = BATCH_SIZE,
    ):
        self.model, self.description, self._batch_size = model, description, batch_size
        self._mesh = make_mesh(jax.local_devices())
        self.variables = jax.device_put(variables, replicated(self._mesh))

    @classmethod
    def from_run(
        cls, workdir: str | os.PathLike, which: str | int = "best", **options: Any
    ) -> "Classifier":
        """Reads a run's network.

        Args:
          workdir: what `--workdir` was.
          which: "best" by the run's metric, "last", or a step.
          **options: `batch_size`.

        Raises:
          UserError: there is no such run or checkpoint, it is damaged, or pictures cannot be made
            what it was trained on.
        """
        run.check_takes_pictures(workdir)
        return cls(*run.restore(workdir, which), **options)

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike, *, batch_size: int = BATCH_SIZE, **options: Any
    ) -> "Classifier":
        """Reads a network that others trained.

        Args:
          name: a repository of the hub, a directory or a file of weights.
          batch_size: images a step, at most.
          **options: of `resnet_jax.pretrained.load_pretrained`.

        Raises:
          UserError: there is none, it cannot be fetched, or its network is not one of
            `list_models`.
        """
        return cls(*pretrained.load_pretrained(str(name), **options), batch_size=batch_size)

    def predict(self, images: Any, *, top: int = TOP, on_error: str = "stop") -> list[Any]:
        """Names what images show.

        Args:
          images: see the class.
          top: how many classes of each; at most as many as there are.
          on_error: what an unreadable file does: "stop" raises, "skip" gives None.

        Returns:
          A `Prediction` of each image, in order.

        Raises:
          UserError: an image cannot be read, or the network has no classifier.
        """
        return list(self.predict_each(images, top=top, on_error=on_error))

    def predict_each(
        self,
        images: Any,
        *,
        top: int = TOP,
        on_error: str = "stop",
        say: Callable[[str], None] | None = None,
    ) -> Iterator[Prediction | None]:
        """Yields what `predict` returns, batch by batch.

        Args:
          images: as for `predict`.
          top: as for `predict`.
          on_error: as for `predict`.
          say: told the file and the fault of each image that is skipped, from a thread.
        """
        if not self.model.num_classes:
            raise UserError(
                f"{self.description.source}: has no classifier, so it names no classes; it gives"
                " features"
            )
        for logits in self._rows(self._logits_step, images, on_error, say):
            yield None if logits is None else self._prediction(logits, top)

    def features(self, images: Any) -> "Float[np.ndarray, 'n f']":
        """Returns what the classifier sees, the pooled features [N, F], of images as for `predict`.

        Raises:
          UserError: an image cannot be read.
        """
        every = self._rows(self._features_step, images, "stop", None)
        rows = [row for row in every if row is not None]
        width = list(self.model.feature_info().values())[-1].channels
        return np.stack(rows) if rows else np.zeros((0, width), np.float32)

    def preprocess(self, images: Any) -> "Float[np.ndarray, 'n size size c']":
        """Returns images as the network takes them, see `resnet_jax.preprocess`."""
        return preprocess(images, self.description)

    def _rows(
        self, step: Callable, images: Any, on_error: str, say: Callable[[str], None] | None
    ) -> Iterator[np.ndarray | None]:
        """Yields a row of a step's result for each image, None for one that is skipped."""
        images = listed(images)
        if not len(images):
            return
        loader = self._loader(images, on_error, say)
        put = functools.partial(shard_batch, self._mesh)

        def read(started: tuple[jax.Array, jax.Array]) -> Iterator[np.ndarray | None]:
            rows, mask = jax.device_get(started)
            return (row if is_read else None for row, is_read in zip(rows, mask, strict=True))

        def batches() -> Iterator[Iterator[np.ndarray | None]]:
            # A batch is read when the next one has been started, so that devices never wait.
            before = None
            with data.Prefetcher(loader, 0, len(loader), put) as made:
                for _, batch in made:
                    started = step(self.variables, batch), batch["mask"]
                    if before is not None:
                        yield read(before)
                    before = started
                if before is not None:
                    yield read(before)

        try:
            with faults_of_pictures():
                yield from itertools.islice(itertools.chain.from_iterable(batches()), len(images))
        finally:
            loader.close()

    def _loader(
        self, images: Sequence[Any], on_error: str, say: Callable[[str], None] | None
    ) -> data.Loader:
        fields = config_lib.defaults().data
        if fault := data.FIELDS["on_error"].fault(on_error):
            raise UserError(f"on_error = {on_error!r}: {fault}")
        # Whoever asks for some pictures is told of each that cannot be read.
        fields.update(on_error=on_error, max_skipped=1.0, **self.description.data_fields())
        return data.Loader(
            Pictures(images, len(self.description.mean)),
            fields,
            batch_size=min(self._batch_size, 1 << (len(images) - 1).bit_length()),
            seed=0,
            train=False,
            pad_to=self._mesh.size,
            say=say,
        )

    @functools.cached_property
    def _logits_step(self) -> Callable:
        return self._step(self.model)

    @functools.cached_property
    def _features_step(self) -> Callable:
        return self._step(self.model.clone(num_classes=0))

    def _step(self, model: ResNet) -> Callable:
        fields = config_lib.defaults().data
        fields.update(**self.description.data_fields())
        source = Pictures((), len(self.description.mean))
        normalise = data.make_normalise(fields, source, dtype=model.param_dtype)
        return jit_step(self._mesh, functools.partial(forward, model=model, normalise=normalise))

    def _prediction(self, logits: np.ndarray, top: int) -> Prediction:
        best = np.argsort(-logits, kind="stable")[:top]
        wide = np.exp(logits.astype(np.float64) - logits.max())
        names = self.description.classes
        return Prediction(
            # A network may have more classes than its data.
            tuple(names[place] if place < len(names) else str(place) for place in best),
            tuple((wide[best] / wide.sum()).tolist()),
        )


@dataclasses.dataclass(frozen=True)
class Named:
    """The network that the flags of a command line name.

    Attributes:
      workdir: of a run; or
      weights: a repository of the hub, a directory or a file of weights.
      model: of a file of weights, its network's name.
      classes: a file of class names for weights, one a line.
      which: checkpoint of the run.

    Raises:
      UserError: neither or both are given, or a flag that is given has no effect.
    """

    workdir: str | None = None
    weights: str | None = None
    model: str | None = None
    classes: str | None = None
    which: str = "best"

    def __post_init__(self):
        if (self.workdir is None) == (self.weights is None):
            raise UserError(
                "give either --workdir, the directory of a run, or --weights, the name of a"
                " pretrained network, a directory or a file"
            )
        for flag in ("model", "classes") if self.weights is None else ():
            if (value := getattr(self, flag)) is not None:
                raise UserError(
                    f"--{flag}={value} has no effect: a run keeps its own; leave it out"
                )
        if self.weights is not None and self.which != "best":
            raise UserError(
                f"--which={self.which} has no effect: weights have no checkpoints; leave it out"
            )

    @classmethod
    def of(cls, arguments: Any) -> "Named":
        """Reads the flags of these names, attributes of `arguments`."""
        return cls(
            **{field.name: getattr(arguments, field.name) for field in dataclasses.fields(cls)}
        )

    @property
    def precision(self) -> str:
        """The `config.precision` that it was trained in, float32 for weights."""
        return "float32" if self.workdir is None else run.read_config(self.workdir).precision

    def load(self) -> tuple[ResNet, dict[str, Any], Description]:
        """Returns the Flax module, its variables and a description.

        Raises:
          UserError: there is no such network.
        """
        if self.weights is None:
            assert self.workdir is not None  # One of them is given.
            return run.restore(self.workdir, self.which)
        network, variables, description = pretrained.load_pretrained(
            self.weights, size="test", model=self.model
        )
        if self.classes is not None:
            names = class_lists.read(pathlib.Path(self.classes))
            if len(names) != network.num_classes:
                raise UserError(
                    f"--classes={self.classes}: lists {len(names)} classes, and {self.weights} has"
                    f" {network.num_classes}; give it one line for each"
                )
            description = dataclasses.replace(description, classes=tuple(names))
        return network, variables, description
