"""Which operations an image goes through: draws of RandAugment, TrivialAugment, AutoAugment.

A draw is a list of (operation's name, amount), a pure function of (seed, epoch, index, copy).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from resnet_jax.data.images import operations
from resnet_jax.data.images.draws import Draws

Steps = list[tuple[str, float]]

_STREAM = 0x706F6C69

# timm's RandAugment draws from these; the paper has identity in the place of the two last ones.
RANDAUGMENT = (
    *("autocontrast", "equalize", "rotate", "posterize", "solarize", "color", "contrast"),
    *("brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
    *("invert", "solarize_add"),
)
TRIVIALAUGMENT = (
    *("identity", "autocontrast", "equalize", "rotate", "posterize", "solarize", "color"),
    *("contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
# (operation, probability, level of 10), twice a line: Cubuk et al. 2018, table 9.
AUTOAUGMENT = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)
_BLENDS = ("color", "contrast", "brightness", "sharpness")


def randaugment(
    draws: Draws, size: int, n: int, m: float, mstd: float, inc: bool, probability: float
) -> Steps:
    """Draws RandAugment (Cubuk et al. 2019) in timm's form, whose parameters recipes quote.

    Each of n operations is drawn from `RANDAUGMENT`, all alike, and applied with `probability`.

    Args:
      draws: random numbers of the view.
      size: side of the image in pixels, of which a translation is a part.
      n: how many operations are drawn.
      m: the magnitude, 0 to 10.
      mstd: standard deviation of the magnitude, drawn for each operation and kept within 0 to 10.
      inc: whether posterize and solarize too are stronger at a higher magnitude, and the blends
        move away from 1 to both sides; else they go from 0.1 to 1.9 as m goes from 0 to 10.
      probability: 0.5 in timm, 1 in the paper.
    """
    steps = []
    for _ in range(n):
        name = RANDAUGMENT[draws.below(len(RANDAUGMENT))]
        level, sign = m + mstd * draws.normal(), draws.sign()
        if draws.uniform() < probability:
            share = min(max(level, 0.0), 10.0) / 10
            steps.append((name, _randaugment_amount(name, share, sign, size, inc)))
    return steps


def _randaugment_amount(name: str, share: float, sign: int, size: int, inc: bool) -> float:
    if inc and name in _BLENDS:
        return max(0.1, 1 + sign * 0.9 * share)
    if name == "posterize":
        bits = int(share * 4)
        return 4 - bits if inc else bits
    if name == "solarize":
        threshold = int(share * 256)
        return 256 - threshold if inc else threshold
    if name == "solarize_add":
        return int(share * 110)
    if name.startswith("translate"):
        return sign * round(share * 0.45 * size)
    return _autoaugment_amount(name, share, sign)


def trivialaugment_wide(draws: Draws) -> Steps:
    """Draws TrivialAugment with its wide ranges (Müller and Hutter 2021).

    One operation of `TRIVIALAUGMENT`, all alike, at one of 31 strengths.
    """
    name = TRIVIALAUGMENT[draws.below(len(TRIVIALAUGMENT))]
    share, sign = draws.below(31) / 30, draws.sign()
    if name in _BLENDS:
        return [(name, 1 + sign * 0.99 * share)]
    amount = {
        "shear_x": sign * 0.99 * share,
        "shear_y": sign * 0.99 * share,
        "translate_x": sign * int(32 * share),
        "translate_y": sign * int(32 * share),
        "rotate": sign * 135 * share,
        "posterize": 8 - round(6 * share),
        "solarize": 255 - 255 * share,
    }
    return [(name, amount.get(name, 0))]


def autoaugment(draws: Draws) -> Steps:
    """Draws one of AutoAugment's 25 pairs for ImageNet (Cubuk et al. 2018, table 9)."""
    steps = []
    for name, probability, level in AUTOAUGMENT[draws.below(len(AUTOAUGMENT))]:
        applied, sign = draws.uniform() < probability, draws.sign()
        if applied:
            steps.append((name, _autoaugment_amount(name, level / 10, sign)))
    return steps


def _autoaugment_amount(name: str, share: float, sign: int) -> float:
    """Returns the amount at `share` of the range that table 6 gives an operation."""
    if name in _BLENDS:
        return 0.1 + 1.8 * share
    if name.startswith("shear"):
        return sign * 0.3 * share
    if name == "rotate":
        return sign * 30 * share
    if name == "posterize":
        return 4 + int(4 * share)
    return int(256 * share) if name == "solarize" else 0


def color_jitter(draws: Draws, most: tuple[float, float, float, float]) -> Steps:
    """Draws factors of brightness, contrast and saturation and a turn of the hue, in any order.

    As torchvision's ColorJitter: a factor is uniform in 1 - most to 1 + most, the turn in - most to
    most of the circle.
    """
    names = ("brightness", "contrast", "color", "hue")
    steps = []
    for name, strength in zip(names, most, strict=True):
        change = (2 * draws.uniform() - 1) * strength
        steps.append((draws.uniform(), name, change if name == "hue" else 1 + change, strength))
    return [(name, amount) for _, name, amount, strength in sorted(steps) if strength]


def make_policy(
    config: Any, seed: int, shape: tuple[int, int, int], moments: Callable[[], Any]
) -> Callable[[np.ndarray, int, int, int], np.ndarray] | None:
    """Returns the function from an image and its (epoch, index, copy) to what the policy makes.

    After the policy comes the colour jitter. What comes into view from outside is black in
    TrivialAugment, as torchvision has it, and the mean colour in the others, as timm has it.

    Args:
      config: `config.data`.
      seed: of the run.
      shape: [H, W, C] of the images, uint8, C 1 or 3.
      moments: returns mean and deviation a channel, of pixels in 0..1; asked where needed.

    Returns:
      The function, or None where `config` asks for nothing.
    """
    jitter = tuple(config.color_jitter)
    if config.policy == "none" and not any(jitter):
        return None
    fill: tuple[int, ...] = (0,) * shape[2]
    if config.policy in ("randaugment", "autoaugment"):
        fill = tuple(round(255 * float(value)) for value in moments()[0])
    draw = _drawing(config, shape[1])

    def change(pixels: np.ndarray, epoch: int, index: int, copy: int) -> np.ndarray:
        draws = Draws(_STREAM, seed, epoch, index, copy)
        steps = draw(draws) + (color_jitter(draws, jitter) if any(jitter) else [])
        if not steps:
            return pixels
        is_grey = shape[2] == 1
        image = Image.fromarray(pixels[..., 0] if is_grey else pixels)
        for name, amount in steps:
            image = operations.apply(image, name, amount, fill[0] if is_grey else fill)
        return np.asarray(image).reshape(shape)

    return change


def _drawing(config: Any, size: int) -> Callable[[Draws], Steps]:
    # Bound once: a config's fields are slow to read.
    n, m, mstd = config.policy_n, config.policy_m, config.policy_mstd
    inc, probability = config.policy_inc, config.policy_probability
    return {
        "none": lambda draws: [],
        "randaugment": lambda draws: randaugment(draws, size, n, m, mstd, inc, probability),
        "trivialaugment_wide": trivialaugment_wide,
        "autoaugment": autoaugment,
    }[config.policy]
