"""Which data sets there are, by the names that `config.data.name` takes."""

import pathlib

from resnet_jax.errors import UserError, nearest

OWN = ("cifar", "digits", "folder", "idx", "shards", "synthetic")


def check(name: str, directory: str | None) -> None:
    """Checks that `name` is a source of this package, or one that TFDS knows or has prepared.

    Raises:
      UserError: nobody knows the name; the message suggests near ones.
    """
    if name in OWN or (directory and (pathlib.Path(directory) / name).is_dir()):
        return
    import tensorflow_datasets as tfds

    registered = tfds.list_builders(with_community_datasets=False)
    if name.split("/")[0].split(":")[0] in registered:
        return
    hint = nearest(name, [*OWN, *registered]) or f"own sources: {', '.join(OWN)}; all others are TFDS's names"
    raise UserError(f"config.data.name = {name!r}: no such data set; {hint}")
