"""`--mode=summarize`: a network's table, and the recipe's data as a picture, before anything is
trained.
"""

import os

import jax
from ml_collections import ConfigDict

from resnet_jax import data, experiment
from resnet_jax.config import build_model
from resnet_jax.distributed.mesh import make_mesh
from resnet_jax.errors import UserError
from resnet_jax.models import create_model
from resnet_jax.models.analysis.summary import Summary, format_summary
from resnet_jax.models.analysis.summary import summarize as count
from resnet_jax.models.zoo import Variant, get_variant


def summarize(
    *,
    config: ConfigDict | None = None,
    model: str | None = None,
    picture: str = "batch.png",
    channels: int = 3,
) -> None:
    """Prints parameters, multiply-adds, activations and memory, stage by stage, beside the
    reference.

    For a recipe whose data is there, images and classes are those of the data, and its first
    training batch is saved as a picture, augmented as the network will see it, with labels.

    Args:
      config: a recipe; or
      model: a name for `create_model`, counted at the image size of its paper's data.
      picture: the file for the first batch of a recipe.
      channels: of the images, where there is no data to tell.

    Raises:
      UserError: neither or both are given, or the network cannot be built.
    """
    if (config is None) == (model is None):
        raise UserError("--mode=summarize: give either --config=FILE or --model=NAME")
    name = model or config.model.name
    variant = get_variant(name)
    size = (variant.image_size, variant.image_size)
    if config is None:
        network = create_model(name)
        said = None
    else:
        loader, said = _open(config)
        if loader is None:
            size = (config.data.image_size or variant.image_size,) * 2
        else:
            config = experiment.resolve(config, loader)
            *size, channels = loader.image_shape
            said = _picture(config, loader, picture)
        network = build_model(config)
    summary = count(network, tuple(size), channels)
    height, width = size
    title = (
        f"{name}, {height}x{width}x{channels} images, {network.num_classes} classes,"
        f" {network.dtype.name}"
    )
    print(format_summary(summary, title))
    print(_beside_reference(variant, summary, tuple(size)))
    if said:
        print(said)


def _open(config: ConfigDict) -> tuple[data.Loader | None, str]:
    """Returns the training batches of a recipe, or None and why there are none."""
    experiment.prepare_runtime(config)
    try:
        return experiment.make_loader(config, make_mesh(), train=True), ""
    except UserError as error:
        return None, f"no picture of the data: {error}"


def _picture(config: ConfigDict, loader: data.Loader, path: str) -> str:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    data.save_grid(loader, 0, path, augment=jax.jit(experiment.make_augment(config, loader)))
    return f"the first batch of {loader.source.name} {loader.source.split}: {path}"


def _beside_reference(variant: Variant, summary: Summary, size: tuple[int, int]) -> str:
    parts = [f"{variant.params:,} parameters ({_difference(summary.params, variant.params)})"]
    if size == (variant.image_size, variant.image_size):
        parts.append(f"{variant.macs / 1e6:,.2f} MMACs ({_difference(summary.macs, variant.macs)})")
    default = create_model(variant.name).num_classes
    return f"reference, {default} classes: {', '.join(parts)}; {variant.counts}; {variant.paper}"


def _difference(found: int, reference: int) -> str:
    return "equal" if found == reference else f"here {found - reference:+,}"
