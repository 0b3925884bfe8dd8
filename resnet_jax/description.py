"""What a network that was read from disk is: its classes, its origin, what its images look like."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Description:
    """What a restored or pretrained network is.

    Attributes:
      config: the recipe of a run; None for a network that others trained.
      classes: the names of the classes, in the order of the logits.
      step: steps it was trained for; None where nobody tells.
      scores: its evaluation ("loss", "top1", "top5"), {} when it was not evaluated at this step.
      image_size: the side in pixels that it was trained at.
      eval_size: the side in pixels to score it at.
      interpolation: the filter that resizes its images, "bilinear", "bicubic" or "lanczos".
      crop: share of the resized short side that a central crop keeps.
      crop_mode: "centre" (the crop of a resized image of the same shape) or "squash" (of one
        resized to a square).
      mean, std: per channel, of pixels in 0..1; images are (pixels - mean) / std.
      licence: of the weights; "unknown" where their source does not tell.
      source: where the weights are from.
      commit: the hub's commit of them; None for what does not come from there.
      digest: SHA-256 of the weight files, in hexadecimal; None for a run.
    """

    config: Any = None
    classes: tuple[str, ...] = ()
    step: int | None = None
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    image_size: int = 224
    eval_size: int = 224
    interpolation: str = "bilinear"
    crop: float = 0.875
    crop_mode: str = "centre"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    licence: str = "unknown"
    source: str = ""
    commit: str | None = None
    digest: str | None = None

    def data_fields(self) -> dict[str, Any]:
        """Returns the fields of `config.data` with which images are scored as is said here."""
        return {
            "image_size": self.image_size,
            "eval_size": self.eval_size,
            "eval_crop": self.crop,
            "eval_crop_mode": self.crop_mode,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }
