"""What data and devices decide of a recipe, and what all processes of a run must have alike."""

import jax
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import data
from resnet_jax.distributed.consensus import differing
from resnet_jax.errors import UserError
from resnet_jax.initial import Initial, read_initial
from resnet_jax.teacher import Teacher, read_teacher

# Where a process finds its data, and how it reads them, changes nothing that is learned.
OWN_TO_A_PROCESS = {"data.dir", "data.num_threads", "data.prefetch"}


def resolve(
    given: ConfigDict, loader: data.Loader | data.ProgressiveLoader
) -> tuple[ConfigDict, Initial | None, Teacher | None]:
    """Fills the fields that the training data and the devices decide, so that a run keeps them.

    Args:
      given: a valid recipe; it stays as it is.
      loader: of the training split.

    Returns:
      The recipe; the weights to start from, which are read only where the run begins; the teacher.

    Raises:
      UserError: the network has fewer classes than the data, or weights cannot be read.
    """
    config = config_lib.copy_of(given)
    initial = teacher = None
    if config.precision == "auto":
        config.precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    source = loader.source
    classes = len(source.classes)
    if config.model.num_classes is None:
        config.model.num_classes = classes
    elif config.model.num_classes < classes:
        raise UserError(
            f"config.model.num_classes = {config.model.num_classes}: {source.name} has "
            f"{classes} classes; leave it None, or, where a run has filled it, give it the classes"
            " that it began with"
        )
    height, width, channels = loader.image_shape
    # A run that is there has both fields filled, and may do without the weights.
    if config.init.weights is not None and None in (config.init.digest, config.data.mean):
        initial = read_initial(config, channels)
    if height == width:  # others have a size of their own, which the field cannot say
        config.data.image_size = height
    if config.data.mean is None:
        config.data.mean, config.data.std = source.moments()
    config.data.holdout = source.holdout
    if config.distill.teacher is not None:
        teacher = read_teacher(config, loader.image_shape, source.classes)
    return config, initial, teacher


def check_processes(config: ConfigDict, *loaders: data.Loader | data.ProgressiveLoader) -> None:
    """Checks that all processes have one recipe and one data set, wherever it lies; a barrier.

    Raises:
      UserError: one has another than process 0; in every process.
    """
    sources = [loader.source for loader in loaders]
    flat = config_lib.flatten(config)
    fields = {name: value for name, value in flat if name not in OWN_TO_A_PROCESS}
    described = [(source.split, data.fingerprint(source)["digest"]) for source in sources]
    if others := differing(repr((fields, described))):
        raise UserError(
            f"another recipe or other data than process 0 in process "
            f"{', '.join(map(str, others))}: give all the same command, a --workdir that all "
            f"of them see, and the same files in config.data.dir (here "
            f"{config.data.dir!r}: "
            f"{', '.join(f'{len(source)} {source.split} images' for source in sources)})"
        )
