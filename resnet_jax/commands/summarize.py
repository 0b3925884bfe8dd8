"""`--mode=summarize`: a network's table, for a recipe or a name, before anything is trained."""

from ml_collections import ConfigDict

from resnet_jax.config import build_model
from resnet_jax.errors import UserError
from resnet_jax.models import create_model
from resnet_jax.models.summary import Summary, format_summary, summarize
from resnet_jax.models.zoo import Variant, get_variant


def run(*, config: ConfigDict | None = None, model: str | None = None, channels: int = 3) -> None:
    """Prints parameters, multiply-adds, activations and memory, stage by stage, beside the reference.

    Args:
      config: a recipe, read for `model` and `data.image_size`; or
      model: a name for `create_model`, counted at the image size of its paper's data.
      channels: of the images.

    Raises:
      UserError: neither or both are given, or the network cannot be built.
    """
    if (config is None) == (model is None):
        raise UserError("--mode=summarize: give either --config=FILE or --model=NAME")
    name = model or config.model.name
    variant = get_variant(name)
    size = variant.image_size
    if config is None:
        network = create_model(name)
    else:
        size = config.data.image_size or size
        network = build_model(config)
    summary = summarize(network, size, channels)
    title = f"{name}, {size}x{size}x{channels} images, {network.num_classes} classes, {network.dtype.name}"
    print(format_summary(summary, title))
    print(_beside_reference(variant, summary, size))


def _beside_reference(variant: Variant, summary: Summary, size: int) -> str:
    parts = [f"{variant.params:,} parameters ({_difference(summary.params, variant.params)})"]
    if size == variant.image_size:
        parts.append(f"{variant.macs / 1e6:,.2f} MMACs ({_difference(summary.macs, variant.macs)})")
    default = create_model(variant.name).num_classes
    return f"reference, {default} classes: {', '.join(parts)}; {variant.counts}; {variant.paper}"


def _difference(found: int, reference: int) -> str:
    return "equal" if found == reference else f"here {found - reference:+,}"
