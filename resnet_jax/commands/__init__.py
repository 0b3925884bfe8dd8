"""The verbs of the command line, one file each.

A verb is a module here that holds `VERB`: what it does, its own flags, and the function that runs
it. The file is all there is to adding one: `--mode` takes the names of the files.
"""

import dataclasses
import importlib
import pkgutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from resnet_jax.errors import UserError, nearest, writing


class Arguments(types.SimpleNamespace):
    """The values of the flags that a verb takes, by name.

    Attributes:
      config: the validated recipe of --config, None where none was given.
      recipe_file: the file that it came from.
      words: what stands on the command line beside the flags.
    """

    config: ConfigDict | None
    recipe_file: Path | None
    words: list[str]

    def recipe(self) -> ConfigDict:
        """Returns the recipe; raises `UserError` where none was given."""
        if self.config is None:
            raise UserError(
                "--config is missing: name a recipe, for example --config=configs/quickstart.py"
            )
        return self.config

    def workdir_of_recipe(self) -> str:
        """Returns --workdir, by default runs/NAME for the recipe configs/NAME.py."""
        assert self.recipe_file is not None  # It comes with the recipe.
        *folders, name = self.recipe_file.with_suffix("").parts
        if "configs" in folders:
            # With its folder, since configs/ and configs/tutorials/ may each have a NAME.py.
            name = "/".join([*folders[folders.index("configs") + 1 :], name])
        return self.workdir or f"runs/{name}"

    def required(self, flag: str, what: str) -> Any:
        """Returns a flag's value; raises `UserError` where it is absent: it should name `what`."""
        value = getattr(self, flag)
        if value is None:
            raise UserError(f"--{flag} is missing: --mode={self.mode} needs {what}")
        return value


@dataclasses.dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
      help: what it does, in a line.
      run: does it, given the `Arguments`.
      define_flags: defines its own flags, beside those that all verbs share.
      takes_recipe: whether --config and its overrides are flags of it.
      takes_words: whether it takes words that are no flags, such as files.
      several_processes: whether it runs in several processes at once.
    """

    help: str
    run: Callable[[Arguments], None]
    define_flags: Callable[[flags.FlagValues], None]
    takes_recipe: bool = False
    takes_words: bool = False
    several_processes: bool = True


def names() -> list[str]:
    """Returns the names of all verbs."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Verb:
    """Returns a verb by its name; raises `UserError` with the nearest names where there is none."""
    if name not in names():
        raise UserError(f"--mode={name}: no such verb; {nearest(name, names())}".rstrip("; "))
    return importlib.import_module(f"{__name__}.{name}").VERB


def flags_of(verb: Verb) -> flags.FlagValues:
    """Returns a verb's own flags, none of them parsed."""
    values = flags.FlagValues()
    verb.define_flags(values)
    return values


def local_directory(flag: str, directory: str) -> Path:
    """Returns the directory that a flag names; raises `UserError` for the address of a bucket."""
    if "://" in directory:
        raise UserError(f"--{flag}={directory}: must be a local directory; name one")
    return Path(directory)


def made_directory(flag: str, directory: str) -> Path:
    """Returns the local directory that a flag names, made where it is absent, before hours of work
    whose results go there; raises `UserError` where it cannot be made.
    """
    path = local_directory(flag, directory)
    with writing(f"--{flag}={directory}"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def define_network_flags(values: flags.FlagValues) -> None:
    """Defines the flags that say which trained network a verb takes; see `classifier.Named`."""
    flags.DEFINE_string("workdir", None, "the run", flag_values=values)
    flags.DEFINE_string("which", "best", "the checkpoint: best, last or a step", flag_values=values)
    flags.DEFINE_string(
        "weights",
        None,
        "in place of --workdir: a network of the hub, a directory or a file of weights",
        flag_values=values,
    )
    flags.DEFINE_string(
        "model", None, "of a file of weights: its network's name", flag_values=values
    )
    flags.DEFINE_string(
        "classes", None, "with --weights: a file of class names, one a line", flag_values=values
    )


def define_crop_flag(values: flags.FlagValues) -> None:
    """Defines the flag that says how much of an image a verb shows to a network."""
    flags.DEFINE_float(
        "eval_crop",
        None,
        "share of the resized short side that is shown; default: the network's",
        lower_bound=0.01,
        upper_bound=1.0,
        flag_values=values,
    )
