"""What is exported, how, and what comes of it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from resnet_jax.description import Description
from resnet_jax.errors import UserError
from resnet_jax.models.resnet import ResNet

Answer = Callable[[np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to write.

    Attributes:
      form: one of `FORMATS`.
      fold: whether to fold BatchNorm layers into the convolutions before them.
      raw: whether to leave out normalisation and softmax.
      opset: ONNX's; None: the default.

    Raises:
      UserError: at construction, where the format has no such choice.
    """

    form: str
    fold: bool = False
    raw: bool = False
    opset: int | None = None

    def __post_init__(self) -> None:
        for name in ("fold", "raw"):
            if self.form == "torch" and getattr(self, name):
                raise UserError(
                    f"--{name} is not for --format=torch, whose file holds the arrays of PyTorch's"
                    " own layers: leave it out, or take onnx or stablehlo"
                )
        if self.opset is not None and self.form != "onnx":
            raise UserError(f"--opset is for --format=onnx, and not for {self.form}: leave it out")


class Network(NamedTuple):
    """A trained network in float32, its arrays NumPy's, and what it is."""

    model: ResNet
    variables: Mapping[str, Any]
    description: Description

    @classmethod
    def of(cls, model: ResNet, variables: Mapping[str, Any], description: Description) -> "Network":
        """Takes what `restore` and `load_pretrained` give."""
        arrays = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
        arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), arrays)
        return cls(model.clone(dtype="float32", param_dtype="float32"), arrays, description)

    @property
    def images(self) -> dict[str, Any]:
        """The size, mean and deviation of its images."""
        about = self.description
        return {"size": about.eval_size, "mean": about.mean, "std": about.std}


class Written(NamedTuple):
    """A file that was written.

    Attributes:
      answer: runs it on a batch.
      takes_images: whether it takes normalised images, not pixels, and gives logits.
      library: what hubs call the library that runs it.
      code: Python's lines that run it.
      notes: about the file, for the card.
    """

    answer: Answer
    takes_images: bool
    library: str
    code: str
    notes: list[str]
