"""`--mode=summarize`: a network's table, and the recipe's data as a picture."""

import os

import jax
from absl import flags
from ml_collections import ConfigDict

from resnet_jax import data
from resnet_jax.commands import Arguments, Verb, local_directory
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.models import create_model, zoo
from resnet_jax.models.analysis.summary import Summary, format_summary
from resnet_jax.models.analysis.summary import summarize as count
from resnet_jax.models.variants import Variant
from resnet_jax.models.zoo import get_variant
from resnet_jax.seeds import seed_words


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("model", None, "a network's name, in place of --config", flag_values=values)
    flags.DEFINE_string(
        "workdir", None, "where batch.png goes; default: runs/<config name>", flag_values=values
    )


def summarize(
    *,
    config: ConfigDict | None = None,
    model: str | None = None,
    picture: str = "batch.png",
) -> None:
    """Prints a network's parameters, multiply-adds, activations and memory, stage by stage.

    For a recipe whose data is there, images and classes are those of the data, and its first
    training batch is saved as a picture, augmented as the network will see it, with labels.

    Args:
      config: a recipe; or
      model: a name for `create_model`, counted at the image size of its paper's data.
      picture: the file for the first batch of a recipe.

    Raises:
      UserError: neither or both are given, or the network cannot be built.
    """
    name = model if config is None else config.model.name
    if name is None or (config is not None and model is not None):
        raise UserError("--mode=summarize: give either --config=FILE or --model=NAME")
    variant = get_variant(name)
    height = width = variant.image_size
    channels, said = 3, ""
    if config is None:
        network = create_model(name)
    else:
        prepare_runtime(config.precision, config.deterministic)
        experiment = Experiment(config)
        try:
            experiment.resolve()
            height, width, channels = experiment.train_loader.image_shape
            said = _picture(experiment, picture)
        except UserError as error:
            height = width = config.data.image_size or variant.image_size
            said = f"no picture of the data: {error}"
        network = experiment.model
    summary = count(network, (height, width), channels)
    described = name if config is None else zoo.describe(config.model)
    title = (
        f"{described}, {height}x{width}x{channels} images, {network.num_classes} classes,"
        f" {network.dtype.name}"
    )
    print(format_summary(summary, title))
    # Counts of the network of that name say nothing of one with other fields.
    if described == name:
        print(_beside_reference(variant, summary, (height, width)))
    if said:
        print(said)


def _picture(experiment: Experiment, path: str) -> str:
    loader = experiment.train_loader
    augment, seed = jax.jit(experiment.augment), seed_words(experiment.config.seed)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        data.save_grid(loader, 0, path, augment=lambda batch: augment(batch, seed))
    except OSError as error:
        return f"no picture of the data: {path}: {error.strerror or error}"
    return f"the first batch of {loader.source.name} {loader.source.split}: {path}"


def _beside_reference(variant: Variant, summary: Summary, size: tuple[int, int]) -> str:
    parts = [f"{variant.params:,} parameters ({_difference(summary.params, variant.params)})"]
    if size == (variant.image_size, variant.image_size):
        parts.append(f"{variant.macs / 1e6:,.2f} MMACs ({_difference(summary.macs, variant.macs)})")
    default = create_model(variant.name).num_classes
    return f"reference, {default} classes: {', '.join(parts)}; {variant.counts}; {variant.paper}"


def _difference(found: int, reference: int) -> str:
    return "equal" if found == reference else f"here {found - reference:+,}"


def main(arguments: Arguments) -> None:
    local_directory("workdir", arguments.workdir or "")
    if arguments.config is None:
        summarize(model=arguments.model)
    else:
        picture = f"{arguments.workdir_of_recipe()}/batch.png"
        summarize(config=arguments.config, model=arguments.model, picture=picture)


VERB = Verb(
    "shows a network stage by stage, and the first batch as a picture",
    main,
    define_flags,
    takes_recipe=True,
    several_processes=False,
)
