"""All of the public interface in one script; type checkers accept it.

python examples/public_api.py
"""

import tempfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import resnet_jax
from resnet_jax import (
    ResNet,
    UserError,
    create_model,
    list_models,
    list_pretrained,
    load_pretrained,
    load_torch,
    preprocess,
    restore,
    save_torch,
)
from resnet_jax.description import Description
from resnet_jax.models import BasicBlock, BottleneckBlock


class Stage(nn.Module):
    """A stage of one's own: [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), 64]."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = BottleneckBlock(16, stride=2, shortcut="D", se_ratio=0.25)(x, train)
        return BasicBlock(64, norm="group", norm_channel_groups=8, dtype="bfloat16")(x, train)


def main() -> None:
    print(resnet_jax.__version__, list_models("resnet*d"), list_pretrained("resnet50*")[:2])
    photographs = np.zeros((2, 40, 48, 3), np.uint8)
    images = jnp.asarray(preprocess(photographs, Description(eval_size=32)))
    model: ResNet = create_model("cifar_resnet20", num_classes=5, remat="block", name="net")
    variables: dict[str, Any] = dict(jax.jit(model.init)(jax.random.key(0), images))
    logits = jax.jit(model.apply)(variables, images)
    maps = model.apply(variables, images, method="features")
    print(jax.tree.map(jnp.shape, (logits, maps)), model.feature_info(), model.smallest_image())

    print(jax.eval_shape(Stage().init_with_output, jax.random.key(0), images)[0])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_torch(variables, path)
        same = load_torch(model, path)
        print(jax.tree.all(jax.tree.map(jnp.array_equal, same, variables)))
        try:
            model, variables, description = load_pretrained(folder)
            print(model.num_classes, description.classes)
        except UserError as error:
            print(error)
    try:
        model, variables, description = restore(workdir="no/such/run", which="best")
        print(model.num_classes, description.step)
    except UserError as error:
        print(error)


if __name__ == "__main__":
    main()
