"""Writes policy_goldens.json: what torchvision and timm make of two photographs.

    python tests/data/make_policy_goldens.py

in an environment that has torchvision, timm and scikit-learn. Of each result the means over a grid
of 4x4 cells are kept. Each case is the operation's name here, its amount here, and the peer's call.
"""

import json
import pathlib

import numpy as np
import PIL
import timm
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import auto_augment
from torchvision.transforms import InterpolationMode, autoaugment
from torchvision.transforms import functional as F

FILL = (124, 116, 104)
# torchvision moves to the right and down where we move to the left and up.
TORCHVISION = [
    ("shear_x", -0.2, "ShearX", -0.2),
    ("shear_x", 0.99, "ShearX", 0.99),
    ("shear_y", -0.3, "ShearY", -0.3),
    ("translate_x", 17, "TranslateX", -17.0),
    ("translate_x", -32, "TranslateX", 32.0),
    ("translate_y", 9, "TranslateY", -9.0),
    ("rotate", 27.0, "Rotate", 27.0),
    ("rotate", -135.0, "Rotate", -135.0),
    ("brightness", 0.3, "Brightness", -0.7),
    ("brightness", 1.99, "Brightness", 0.99),
    ("color", 0.01, "Color", -0.99),
    ("color", 1.72, "Color", 0.72),
    ("contrast", 0.1, "Contrast", -0.9),
    ("contrast", 1.54, "Contrast", 0.54),
    ("sharpness", 0.1, "Sharpness", -0.9),
    ("sharpness", 1.9, "Sharpness", 0.9),
    ("posterize", 2, "Posterize", 2),
    ("posterize", 7, "Posterize", 7),
    ("posterize", 8, "Posterize", 8),
    ("solarize", 127.5, "Solarize", 127.5),
    ("solarize", 0, "Solarize", 0.0),
    ("autocontrast", 0, "AutoContrast", 0.0),
    ("equalize", 0, "Equalize", 0.0),
    ("invert", 0, "Invert", 0.0),
    ("identity", 0, "Identity", 0.0),
]
TIMM = [
    ("solarize_add", 77, "SolarizeAdd", (77,)),
    ("solarize", 256, "Solarize", (256,)),
    ("shear_y", -0.21, "ShearY", (-0.21,)),
    ("rotate", 21.0, "Rotate", (21.0,)),
    ("translate_x", 40.32, "TranslateXRel", (40.32 / 128,)),
    ("translate_y", -30.4, "TranslateYRel", (-30.4 / 160,)),
]
HUES = (0.1, -0.37)


def grid(image: Image.Image) -> list[float]:
    """Returns the means of 4x4 cells in every channel."""
    pixels = np.asarray(image, np.float64)
    height, width, channels = pixels.shape
    cells = pixels.reshape(4, height // 4, 4, width // 4, channels).mean((1, 3))
    return cells.round(2).ravel().tolist()


def main() -> None:
    photos = [Image.fromarray(photo[100:260, 200:328]) for photo in load_sample_images().images]
    cases = []

    def add(name, amount, by, call):
        grids = [grid(call(photo)) for photo in photos]
        cases.append({"name": name, "amount": amount, "by": by, "grids": grids})

    for name, amount, theirs, magnitude in TORCHVISION:
        add(name, amount, "torchvision", lambda photo, n=theirs, m=magnitude: autoaugment._apply_op(
            photo, n, m, InterpolationMode.BILINEAR, list(FILL)))  # fmt: skip
    for turn in HUES:
        add("hue", turn, "torchvision", lambda photo, turn=turn: F.adjust_hue(photo, turn))
    bilinear = {"resample": Image.Resampling.BILINEAR, "fillcolor": FILL}
    for name, amount, theirs, arguments in TIMM:
        operation = auto_augment.NAME_TO_OP[theirs]
        add(name, amount, "timm", lambda photo, f=operation, a=arguments: f(photo, *a, **bilinear))
    versions = {module.__name__: module.__version__ for module in (torchvision, timm, PIL)}
    target = pathlib.Path(__file__).with_name("policy_goldens.json")
    lines = ",\n".join(json.dumps(case) for case in cases)
    target.write_text(f'{{"versions": {json.dumps(versions)}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
