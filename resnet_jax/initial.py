"""What a run starts from when it does not start from random numbers."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import pretrained, run
from resnet_jax.data.sources.imagenet import readable
from resnet_jax.description import Description
from resnet_jax.distributed.consensus import differing
from resnet_jax.errors import UserError
from resnet_jax.models.depths import FIRST_CONVOLUTIONS
from resnet_jax.models.interop.torch_files import read_weights
from resnet_jax.models.interop.torch_weights import adapt_channels, classes_of, load_torch
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.zoo import function_of


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights to start from.

    Attributes:
      source: where they are from.
      model: the network they are of; None for a file, which does not tell.
      variables: {"params", "batch_stats"}, of that network, or for a file of the run's own.
      description: what they are; None for a file.
      has_head: whether a file's classifier has the run's number of classes.
      digest: of what was read.
    """

    source: str
    model: ResNet | None
    variables: Mapping[str, Any]
    description: Description | None
    has_head: bool
    digest: str


def read_initial(config: ConfigDict, channels: int) -> Initial:
    """Reads the weights to start from.

    Args:
      config: the recipe, in which the weights' digest is filled, and where it leaves them open also
        the mean and deviation that their images were normalised by.
      channels: of the images.

    Raises:
      UserError: there is nothing to read, a file does not fit the network, or the weights are not
        those of the digest or of process 0.
    """
    model = config_lib.build_model(config)
    source, prefix = config.init.weights, config.init.prefix
    if prefix and not Path(source).is_file():
        raise UserError(
            f"config.init.prefix = {prefix!r}: config.init.weights = {source!r} is no file of"
            " weights, which alone has keys to choose from; leave it out"
        )
    initial = read_weights_of(source, model, channels, prefix=prefix)
    if config.init.digest not in (None, initial.digest):
        raise UserError(
            f"config.init.weights = {source!r}: their SHA-256 is {initial.digest}, and"
            f" config.init.digest {config.init.digest}; give those weights, or leave the digest out"
        )
    config.init.digest = initial.digest
    description = initial.description
    if config.data.mean is None and description and len(description.mean) == channels:
        config.data.mean, config.data.std = description.mean, description.std
    return initial


def read_weights_of(
    source: str,
    model: ResNet | None,
    channels: int,
    *,
    prefix: str = "",
    field: str = "config.init.weights",
) -> Initial:
    """Reads weights of any origin.

    Args:
      source: a run's directory, a file of weights, or a repository's name.
      model: the network that a file is of; None: a file is refused.
      channels: of the images of a file's network.
      prefix: of a file's keys to take.
      field: that names the source, for messages.

    Raises:
      UserError: there is nothing to read, a file does not fit the network, or process 0 sees other
        weights.
    """
    initial = _read_weights_of(source, model, channels, prefix, field)
    if others := differing(initial.digest):
        raise UserError(
            f"{field} = {source!r}: process {', '.join(map(str, others))}"
            " sees other weights than process 0; give all the same ones"
        )
    return initial


def _read_weights_of(
    source: str, model: ResNet | None, channels: int, prefix: str, field: str
) -> Initial:
    run.check_backend(source, field)
    if (epath.Path(source) / "checkpoints").is_dir():
        loaded, variables, description = run.restore(source)
        variables = jax.device_get(variables)
        return Initial(source, loaded, variables, description, False, _digest_of(variables))
    path = Path(source)
    if path.is_file():
        if model is None:
            raise UserError(
                f"{field} = {source!r}: a file does not tell its network; name it, as list_models"
                " does, in config.distill.network"
            )
        variables = load_torch(
            model, path, num_classes=model.num_classes, in_channels=channels, prefix=prefix
        )
        has_head = classes_of(read_weights(path, prefix)) == model.num_classes
        digest = pretrained.digest([path])
        return Initial(source, None, variables, None, has_head, digest)
    if not path.is_dir() and source.count("/") != 1:
        raise UserError(
            f"{field} = {source!r}: neither a run, nor a file or directory of weights,"
            " nor OWNER/NAME of a repository; see resnet_jax.list_pretrained()"
        )
    loaded, variables, description = pretrained.load_pretrained(source)
    assert description.digest is not None  # That of the files, which a run has not.
    return Initial(source, loaded, variables, description, False, description.digest)


def begin_from(
    initial: Initial, fresh: Mapping[str, Any], model: ResNet, head: str, classes: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """Puts weights into a network.

    Args:
      initial: the weights.
      fresh: the network's variables of random numbers.
      model: the network.
      head: `config.init.head`.
      classes: the names of the data's classes.

    Returns:
      The variables, and a line that says what was taken and what is new.

    Raises:
      UserError: the weights are of another network, or the classifier cannot be kept.
    """
    _check_same_network(initial, model)
    keeps = head != "fresh" and same_classes(initial, model.num_classes, classes)
    if head == "keep" and not keeps:
        raise UserError(
            f"config.init.head = 'keep': the classes of {initial.source} are not those of the data;"
            " set it to 'fresh'"
        )
    given = dict(jax.tree.leaves_with_path(initial.variables))
    new: list[str] = []
    misfits: list[str] = []

    def choose(path: Any, random: Any) -> Any:
        names = [key.key for key in path]
        if names[1] == "fc" and not keeps:
            new.append(".".join(names[1:]))
            return random
        leaf = given.get(path)
        if leaf is not None and names[1] in FIRST_CONVOLUTIONS and names[-1] == "kernel":
            leaf = adapt_channels(np.asarray(leaf), random.shape[2], axis=2)
        if leaf is None or leaf.shape != random.shape:
            misfits.append(".".join(names[1:]))
            return random
        return np.asarray(leaf, random.dtype)

    variables = jax.tree_util.tree_map_with_path(choose, fresh)
    if misfits:
        raise UserError(
            f"config.init.weights = {initial.source!r}: {len(misfits)} arrays are of another"
            f" network than model.name's ({', '.join(misfits[:3])} ...); set model.name to theirs"
        )
    taken = len(jax.tree.leaves(fresh)) - len(new)
    line = f"starting from {initial.source} (SHA-256 {initial.digest[:12]}): {taken} arrays taken"
    return variables, line + (f", new: {', '.join(new)}" if new else ", the classifier too")


def _check_same_network(initial: Initial, model: ResNet) -> None:
    """Checks what the shapes of arrays do not tell, such as the place of a block's stride."""
    if initial.model is None:
        return
    theirs, ours = function_of(initial.model), function_of(model)
    for name, value in theirs.items():
        if value != ours[name]:
            raise UserError(
                f"config.init.weights = {initial.source!r}: its network has {name} = {value!r},"
                f" this one {ours[name]!r}; set model.name or model.{name} to fit"
            )


def same_classes(initial: Initial, num_classes: int, classes: Sequence[str]) -> bool:
    """Whether weights tell apart the classes that a network of `num_classes` is to learn.

    Args:
      initial: the weights.
      num_classes: of the network.
      classes: the names of the data's classes.
    """
    if initial.model is None or initial.description is None:
        return initial.has_head
    known = tuple(readable(initial.description.classes))
    return initial.model.num_classes == num_classes and known == tuple(readable(classes))


def _digest_of(variables: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()
