"""Makes pretrained_goldens.json again: what timm writes and computes for networks that both have.

pip install torch torchvision timm safetensors scikit-learn
PYTHONPATH=tests python tests/models/make_pretrained_goldens.py

For each network timm's own `save_for_hf` writes a directory; its config.json, a fingerprint of its
arrays and the network's logits are kept, of which the weights can be made again from their names.
The three largest are left out, for which this would take 20 GB.
"""

import json
import tempfile
from pathlib import Path

import torch
import torchvision_operators  # noqa: F401

# isort: split
import timm
from golden_weights import CLASSES, PRETRAINED_SIZE, digest, fill, images
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.models import list_models as timm_models
from timm.models import save_for_hf

from resnet_jax.models.zoo import ALIASES, VARIANTS, get_variant

MOST_PARAMS = 300_000_000


@torch.no_grad()
def network(name):
    """Returns what a directory of this network holds, and its logits in double precision."""
    # A tag brings the preprocessing of published weights along, which are not fetched.
    tagged = next(iter(timm.list_pretrained(f"{name}.*")), name)
    made = timm.create_model(tagged, pretrained=False, num_classes=CLASSES)
    shapes = {key: list(value.shape) for key, value in made.state_dict().items()}
    weights = {key: torch.from_numpy(value) for key, value in fill(shapes).items()}
    made.load_state_dict(weights, strict=False)
    with tempfile.TemporaryDirectory() as directory:
        save_for_hf(made, directory, safe_serialization=True)
        config = json.loads((Path(directory) / "config.json").read_text())
    inputs = torch.from_numpy(images(PRETRAINED_SIZE).transpose(0, 3, 1, 2).copy()).double()
    logits = made.eval().double()(inputs)[0]
    return {"config": config, "keys": digest(shapes), "logits": logits.tolist()}


def pixels(tag, test_size):
    """Returns every eighth row and column of timm's own preprocessing of a photograph, in 0..255."""
    config = timm.get_pretrained_cfg(tag).to_dict()
    data = timm.data.resolve_data_config(pretrained_cfg=config, use_test_size=test_size)
    transform = timm.data.create_transform(**data, is_training=False)
    photograph = Path(load_sample_images()["filenames"][0])
    tensor = transform(Image.open(photograph).convert("RGB"))
    scaled = (
        tensor * torch.tensor(data["std"])[:, None, None]
        + torch.tensor(data["mean"])[:, None, None]
    )
    levels = (scaled * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return {
        "config": {
            "architecture": tag.split(".")[0],
            "pretrained_cfg": {key: value for key, value in config.items() if "url" not in key},
        },
        "size": "test" if test_size else "train",
        "shape": levels.shape,
        "levels": levels[::8, ::8].astype(int).tolist(),
    }


def main():
    both = (name for name in timm_models() if name in VARIANTS or name in ALIASES)
    theirs = {name for name in both if get_variant(name).params < MOST_PARAMS}
    goldens = {
        "made with": {"torch": torch.__version__, "timm": timm.__version__},
        "networks": {name: network(name) for name in sorted(theirs)},
        "pixels": [
            pixels("resnet18.tv_in1k", False),
            pixels("resnet50.a1_in1k", False),
            pixels("resnet50.a1_in1k", True),
            pixels("resnet50.tv2_in1k", True),
        ],
    }
    Path(__file__).with_name("pretrained_goldens.json").write_text(json.dumps(goldens) + "\n")


if __name__ == "__main__":
    main()
