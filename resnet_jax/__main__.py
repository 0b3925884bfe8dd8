"""The command line: `python launch.py --config=configs/quickstart.py`, or `python -m resnet_jax`.

The verb is `--mode`; training is the default. Any field of a recipe can be overridden, for example
`--config.batch_size=512` or `--config.model.name=resnet18`.
"""

import itertools
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

import resnet_jax
from resnet_jax import commands, recipes
from resnet_jax import config as config_lib
from resnet_jax.commands import Arguments, Verb
from resnet_jax.distributed import abort, launch
from resnet_jax.distributed.signals import Interrupted
from resnet_jax.errors import UserError, first_line, nearest

_CONFIG = "config"


def main(argv: list[str]) -> int:
    """Parses the command line, runs the command, and returns the exit status."""
    try:
        if {"--help", "-help", "-h"} & set(argv):
            print(help_text())
            return 0
        if "--version" in argv:
            print(f"resnet_jax {resnet_jax.__version__}, jax {jax.__version__}")
            return 0
        verb, arguments = parse(argv)
        _start_processes(verb, arguments)
        verb.run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        abort.leave_peers()
        return 1
    except Interrupted as interrupted:
        return interrupted.status
    except Exception as error:
        abort.explain(error)
        abort.leave_peers()
        raise
    return 0


def parse(argv: list[str]) -> tuple[Verb, Arguments]:
    """Reads the flags and the recipe, and validates the recipe.

    Raises:
      UserError: a flag or a field does not exist, is not this verb's or has an illegal value, or
        the recipe cannot be read.
    """
    argv = [_expand_home(argument) for argument in argv]
    given = list(_flags_in(argv))
    mode = dict(given).get("mode") or "train"
    verb = commands.load(mode)
    values = commands.flags_of(verb)
    values.set_gnu_getopt(verb.takes_words)
    _define_shared_flags(values)
    argv, recipe_file = _find_recipe_in(argv)
    if verb.takes_recipe:
        config_flags.DEFINE_config_file(
            _CONFIG, None, "the recipe", flag_values=values, sys_argv=argv
        )
    for name, _ in given:
        _check_flag(name, values, mode)
    # ml_collections would read "None" as text, and as an error where a field holds numbers. Of a
    # flag that is given twice the last counts, as for absl.
    last = dict(given)
    emptied = {name for name, value in last.items() if value == "None" and _may_be_empty(name)}
    try:
        left = values(_without_emptied(argv, emptied))[1:]
        config = values[_CONFIG].value if verb.takes_recipe else None
    except flags.Error as error:
        raise UserError(str(error).replace("\n", " ")) from error
    except Exception as error:
        raise _fault_of_recipe(error, recipe_file) from error
    if left and not verb.takes_words:
        raise UserError(f"{left[0]!r} is not a flag: flags have the form --name=value")
    if config is not None:
        for name in emptied:
            config_lib.set_field(config, name.removeprefix(f"{_CONFIG}."), None)
        config_lib.validate(config)
        _check_effects(config, last)
    taken = {name: values[name].value for name in values if name.partition(".")[0] != _CONFIG}
    return verb, Arguments(**taken, config=config, recipe_file=recipe_file, words=left)


def help_text() -> str:
    """Returns the verbs with their flags, and every field of a recipe with its default."""
    shared = flags.FlagValues()
    _define_shared_flags(shared)
    lines = [__doc__, "Flags of every verb:", *_describe(shared)]
    for name in commands.names():
        verb = commands.load(name)
        lines += ["", f"--mode={name}: {verb.help}", *_describe(commands.flags_of(verb))]
        lines += ["  --config=FILE: the recipe"] * verb.takes_recipe
        lines += ["  and files, folders, or - for standard input"] * verb.takes_words
    lines += ["", "The fields of a recipe:"]
    for name, value in config_lib.flatten(config_lib.defaults()):
        lines += [f"  --config.{name}={value}", f"      {config_lib.field_of(name).help}"]
    return "\n".join(lines)


def _describe(values: flags.FlagValues) -> list[str]:
    return [f"  --{name}={values[name].default}: {values[name].help}" for name in values]


def _define_shared_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("mode", "train", "the verb", flag_values=values)
    flags.DEFINE_string(
        "coordinator", None, "several processes: host:port of process 0", flag_values=values
    )
    flags.DEFINE_integer(
        "num_processes", None, "several processes: how many", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "process_id",
        None,
        "several processes: which one this is, from 0",
        lower_bound=0,
        flag_values=values,
    )


def _flags_in(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (name, value) of the flags of a command line, in both forms that absl reads."""
    for word, following in itertools.pairwise([*argv[1:], ""]):
        if word == "--":
            return
        if word.startswith("-") and word != "-":
            name, equals, value = word.lstrip("-").partition("=")
            yield name, value if equals else following


def _expand_home(argument: str) -> str:
    # A shell leaves the tilde of --flag=~/path alone.
    name, equals, value = argument.partition("=")
    return name + equals + os.path.expanduser(value)


def _check_flag(name: str, values: flags.FlagValues, mode: str) -> None:
    """Raises `UserError` for a flag that this verb does not have, saying which one has it."""
    section, _, field = name.partition(".")
    if section == _CONFIG and _CONFIG in values:
        if field:
            config_lib.field_of(field)
        return
    if name in values or name.removeprefix("no") in values:
        return
    owners = [
        f"--mode={other}"
        for other in commands.names()
        if name in commands.flags_of(commands.load(other))
        or (section == _CONFIG and commands.load(other).takes_recipe)
    ]
    if owners:
        raise UserError(f"--{name} is no flag of --mode={mode}; it is one of {', '.join(owners)}")
    raise UserError(f"--{name} is not a flag; {nearest(name, values)}".rstrip("; "))


def _without_emptied(argv: list[str], emptied: set[str]) -> list[str]:
    """Returns a command line without the flags that are empty in the end, or were on the way."""
    kept, skip = [], False
    for word, following in itertools.pairwise([*argv, ""]):
        name, equals, value = word.lstrip("-").partition("=")
        is_flag = word.startswith("-")
        value = value if equals else following
        drop = is_flag and (name in emptied or (value == "None" and _may_be_empty(name)))
        if not (drop or skip):
            kept.append(word)
        skip = drop and not equals
    return kept


def _check_effects(config: ConfigDict, given: Iterable[str]) -> None:
    """Raises `UserError` for a field that was typed and does nothing."""
    idle = config_lib.without_effect(config)
    for flag in given:
        if why := idle.get(flag.removeprefix(f"{_CONFIG}.")):
            raise UserError(f"--{flag} has no effect: {why}")


def _may_be_empty(name: str) -> bool:
    section, _, field = name.partition(".")
    return section == _CONFIG and bool(field) and config_lib.field_of(field).fault(None) is None


def _find_recipe_in(argv: list[str]) -> tuple[list[str], Path | None]:
    """Returns the command line with the recipe's file found, and that file."""
    argv, found = list(argv), None
    for place, (word, before) in enumerate(zip(argv[1:], argv, strict=False), 1):
        name, equals, value = word.lstrip("-").partition("=")
        if before in (f"--{_CONFIG}", f"-{_CONFIG}"):
            found = find_recipe(word)
            argv[place] = str(found)
        elif word.startswith("-") and name == _CONFIG and equals:
            found = find_recipe(value)
            argv[place] = f"--{_CONFIG}={found}"
    return argv, found


def find_recipe(path: str) -> Path:
    """Returns the file of a recipe, see `recipes.find`.

    Raises:
      UserError: there is no such file.
    """
    if (found := recipes.find(path)) is not None:
        return found
    hint = nearest(path.removeprefix("configs/").removesuffix(".py"), recipes.shipped())
    raise UserError(
        f"--config={path}: no such file; {hint or '--mode=recipes lists what there is'}"
    )


def _fault_of_recipe(error: Exception, recipe_file: Path | None) -> Exception:
    """Returns what to raise for an error while a recipe was read, with its line there."""
    if recipe_file is None:
        return error
    reason = first_line(error)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == recipe_file
    ]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    where = f"{recipe_file}, line {lines[-1]}" if lines else str(recipe_file)
    if not isinstance(error, UserError):
        reason = f"{type(error).__name__}: {reason}"
    return UserError(f"the recipe cannot be read: {where}: {reason}")


def _start_processes(verb: Verb, arguments: Arguments) -> None:
    given = arguments.coordinator, arguments.num_processes, arguments.process_id
    if verb.several_processes:
        launch.start_processes(*given)
    elif any(value is not None for value in given) or launch.cluster() in ("slurm", "ompi"):
        raise UserError(
            f"--mode={arguments.mode} runs in one process: start it once, without srun, mpirun and "
            "--coordinator"
        )


def run() -> None:
    """Is the console script."""
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    run()
