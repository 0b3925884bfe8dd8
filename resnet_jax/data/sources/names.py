"""Which data sets there are, by the names that `config.data.name` takes."""

import pathlib

from resnet_jax.errors import UserError, nearest

OWN = ("cifar", "digits", "folder", "idx", "shards", "synthetic")
_NEED_DIRECTORY = {
    "cifar": "the CIFAR files",
    "folder": "the image tree",
    "idx": "the IDX files",
    "shards": "the shards that prepare wrote",
}


def check(name: str, directory: str | None) -> None:
    """Checks that `name` is a source of this package, or one that TFDS knows or has prepared.

    Args:
      name: `config.data.name`.
      directory: `config.data.dir`.

    Raises:
      UserError: nobody knows the name, and the message suggests near ones; or it needs a directory.
    """
    if name in _NEED_DIRECTORY and directory is None:
        raise UserError(
            f"config.data.dir = None: data.name {name!r} needs the directory of"
            f" {_NEED_DIRECTORY[name]}; set data.dir"
        )
    if name in OWN or (directory and _is_there(pathlib.Path(directory), name)):
        return
    import tensorflow_datasets as tfds

    registered = tfds.list_builders(with_community_datasets=False)
    if name.split("/")[0].split(":")[0] in registered:
        return
    hint = (
        nearest(name, [*OWN, *registered])
        or f"own sources: {', '.join(OWN)}; all others are TFDS's names"
    )
    raise UserError(f"config.data.name = {name!r}: no such data set; {hint}")


def _is_there(directory: pathlib.Path, name: str) -> bool:
    base = pathlib.PurePath(name.split(":")[0])
    return (directory / base).is_dir() or base.parts[0] in directory.parts
