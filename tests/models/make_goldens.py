"""Makes goldens.json again: what torchvision's and timm's own networks name their arrays and
compute.

pip install torch torchvision timm
python tests/models/make_goldens.py
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from golden_weights import CLASSES, SIZES, SMALL_SIZE, digest, fill, images

LOGITS = {
    "torchvision": (
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnext50_32x4d",
        "wide_resnet50_2",
    ),
    "timm": ("resnetv2_50", "resnet50d"),
}
# Of smaller images, with timm's options of the network beside its name.
SMALL_LOGITS = {
    **{name: {} for name in (
        "resnet26", "resnet10t", "resnet14t", "resnet50s", "resnet50_gn", "resnetv2_18d",
        "resnetv2_50d_gn", "resnext50d_32x4d", "seresnext26t_32x4d", "senet154", "ecaresnet50d",
        "ecaresnetlight", "ecaresnext26t_32x4d", "resnetaa34d", "resnetaa50", "seresnetaa50d",
        "resnetblur18", "resnetblur50", "resnetv2_50x1_bit",
    )},
    "resnet50": {"output_stride": 8},
    "resnet18": {"output_stride": 8},
    "resnet50d": {"output_stride": 16},
    "resnetv2_18": {"output_stride": 16},
}  # fmt: skip
KEYS = {
    "torchvision": (*LOGITS["torchvision"], "resnet152", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet101_2"),
    "timm": (*LOGITS["timm"], *(set(SMALL_LOGITS) - set(LOGITS["torchvision"])), "resnet50c", "resnet18d", "resnetv2_18", "seresnet50", "seresnext50_32x4d",
             "resnetrs50", "resnetv2_101x1_bit", "resnetv2_152x2_bit", "resnext101_32x16d", "resnext101_32x32d",
             "seresnextaa101d_32x8d", "ecaresnet101d", "seresnet152d"),
}  # fmt: skip


def build(library, name, classes, **options):
    if library == "torchvision":
        return torchvision.models.get_model(name, weights=None, num_classes=classes)
    return timm.create_model(name, pretrained=False, num_classes=classes, **options)


def shapes(network):
    return {key: list(value.shape) for key, value in network.state_dict().items()}


@torch.no_grad()
def logits(library, name, sizes=SIZES, **options):
    network = build(library, name, CLASSES, **options)
    weights = fill(shapes(network))
    network.load_state_dict(
        {key: torch.from_numpy(value) for key, value in weights.items()}, strict=False
    )
    network.eval()
    outputs = [
        network(torch.from_numpy(images(size).transpose(0, 3, 1, 2).copy())) for size in sizes
    ]
    return [np.asarray(output[0], np.float64).round(6).tolist() for output in outputs]


def main():
    goldens = {
        "made with": {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
        },
        "keys": {
            name: digest(shapes(build(library, name, 1000)))
            for library, names in KEYS.items()
            for name in names
        },
        "resnet18": shapes(build("torchvision", "resnet18", 1000)),
        "logits": {
            name: logits(library, name) for library, names in LOGITS.items() for name in names
        },
        "small logits": {
            name: {**options, "logits": logits("timm", name, [SMALL_SIZE], **options)[0]}
            for name, options in SMALL_LOGITS.items()
        },
    }
    text = json.dumps(goldens, indent=1)
    Path(__file__).with_name("goldens.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
