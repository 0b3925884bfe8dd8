"""Runs one command of resnet_jax: `python launch.py --config=configs/quickstart.py`.

The verb is `--mode`; training is the default. Any field of a recipe can be overridden, for example
`--config.batch_size=512` or `--config.model.name=resnet18`.
"""

import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from resnet_jax import config as recipe
from resnet_jax.commands.benchmark import benchmark
from resnet_jax.commands.evaluate import evaluate
from resnet_jax.commands.prepare import prepare
from resnet_jax.commands.summarize import summarize
from resnet_jax.commands.train import train
from resnet_jax.distributed import abort
from resnet_jax.distributed.launch import cluster, start_processes
from resnet_jax.distributed.signals import Interrupted
from resnet_jax.errors import UserError
from resnet_jax.sweep import sweep
from resnet_jax.training.reporting.trace import parse as parse_steps

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "the recipe, for example configs/resnet50_imagenet.py"
)
_MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate", "summarize", "benchmark", "prepare"], "what to do"
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where the run is kept; train: runs/<config name> by default"
)
_MODEL = flags.DEFINE_string("model", None, "summarize: a network's name, in place of --config")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "evaluate: images a step; default: the run's", lower_bound=1
)
_WHICH = flags.DEFINE_string("which", "best", "evaluate: the checkpoint: best, last or a step")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "where the data is: of a run, if not where it was; of what is to be prepared"
)
_SWEEP = flags.DEFINE_multi_string(
    "sweep",
    [],
    "train: field=value,value: one run for each value; given again, for each combination",
)
_PROFILE = flags.DEFINE_string(
    "profile", None, "train: start:stop, steps to record a trace of in the workdir's profile/"
)
_SOURCE = flags.DEFINE_string(
    "source",
    "folder",
    "prepare: what --data_dir holds: folder, imagenet_tars, shards or a TFDS name",
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "prepare: where the shards go")
_SPLITS = flags.DEFINE_list(
    "splits", [], "prepare: splits to pack; default: training and evaluation"
)
_SHORT_SIDE = flags.DEFINE_integer(
    "short_side", None, "prepare: shrink longer short sides to this many pixels"
)
_QUALITY = flags.DEFINE_integer("quality", 90, "prepare: JPEG quality of shrunken images, 1 to 100")
_SHARD_EXAMPLES = flags.DEFINE_integer("shard_examples", 4096, "prepare: images a shard")
_NUM_THREADS = flags.DEFINE_integer("num_threads", None, "prepare: threads; default: one a core")
_EVAL_FRACTION = flags.DEFINE_float(
    "eval_fraction", None, "prepare: share held out from a folder without splits"
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "several processes: host:port of process 0")
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "several processes: how many", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "several processes: which one this is, from 0", lower_bound=0
)

_FAULTS_OF_A_RECIPE = (
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
)


def main(argv: list[str]) -> int:
    """Parses the command line, runs the command, and returns the exit status."""
    try:
        parse(argv)
        processes = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
        if _MODE.value in ("summarize", "prepare"):
            if any(value is not None for value in processes) or cluster() in ("slurm", "ompi"):
                raise UserError(
                    f"--mode={_MODE.value} runs in one process: start it once, without srun, mpirun"
                    " and --coordinator"
                )
        else:
            start_processes(*processes)
        dispatch()
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


def parse(argv: list[str]) -> None:
    """Reads the flags and the recipe.

    Raises:
      UserError: a flag or a field does not exist or has an illegal value, or the recipe cannot be
        read.
    """
    # A shell leaves the tilde of --flag=~/path alone.
    words = (argument.partition("=") for argument in argv)
    argv = [name + equals + os.path.expanduser(value) for name, equals, value in words]
    if {"--help", "-help", "-h"} & set(argv):
        print(help_text())
        sys.exit()
    nothing = []  # ml_collections reads "None" for text alone, and then as a word
    for place, argument in enumerate(argv[1:], 1):
        name, _, value = argument.removeprefix("--").removeprefix("-").partition("=")
        if argv[place - 1] in ("--config", "-config"):
            argv[place] = find_recipe(argument)
        elif name == "config" and value:
            argv[place] = f"--config={find_recipe(value)}"
        elif name.startswith("config."):
            field = recipe.field_of(name.removeprefix("config."))
            if value == "None" and field.fault(None) is None:
                nothing.append(argument)
    try:
        left = FLAGS([argument for argument in argv if argument not in nothing])[1:]
        for argument in nothing:
            recipe.set_field(
                _CONFIG.value,
                argument.lstrip("-").removeprefix("config.").removesuffix("=None"),
                None,
            )
        _CONFIG.value  # noqa: B018 - the recipe is run here
    except flags.Error as error:
        raise UserError(str(error).replace("\n", " ")) from error
    except _FAULTS_OF_A_RECIPE as error:
        raise UserError(f"the recipe cannot be read: {str(error).splitlines()[0]}") from error
    if left:
        raise UserError(f"{left[0]!r} is not a flag: flags have the form --name=value")


def help_text() -> str:
    """Returns the flags, and every field of a recipe with its default."""
    fields = [
        f"  --config.{name}={value}\n      {recipe.field_of(name).help}"
        for name, value in recipe.flatten(recipe.defaults())
    ]
    return "\n".join([__doc__, FLAGS.main_module_help(), "", "The fields of a recipe:", *fields])


def find_recipe(path: str) -> str:
    """Returns the file of a recipe, looked for here and among those that came with the package.

    Raises:
      UserError: there is no such file.
    """
    shipped = Path(recipe.__file__).parent
    for candidate in (Path(path), shipped / path):
        if candidate.is_file():
            return str(candidate)
    folder = next(
        (base / "configs" for base in (Path(), shipped) if (base / "configs").is_dir()),
        Path("configs"),
    )
    known = ", ".join(sorted(f"configs/{file.name}" for file in folder.glob("*.py")))
    raise UserError(f"--config={path}: no such file; there are {known or 'none here'}")


def dispatch() -> None:
    """Runs the command that the flags ask for."""
    match _MODE.value:
        case "train":
            config = _required_config()
            workdir = _default_workdir()
            if _SWEEP.value and _PROFILE.value:
                raise UserError("--profile records one run: leave out --sweep")
            if _SWEEP.value:
                sweep(config, _SWEEP.value, workdir)
            else:
                train(
                    config,
                    workdir,
                    profile=parse_steps(_PROFILE.value) if _PROFILE.value else range(0),
                )
        case "evaluate":
            evaluate(
                _required_workdir(),
                which=_WHICH.value,
                batch_size=_BATCH_SIZE.value,
                data_dir=_DATA_DIR.value,
            )
        case "summarize":
            if "://" in (_WORKDIR.value or ""):
                raise UserError(
                    f"--workdir={_WORKDIR.value}: the picture of the data needs a local directory"
                )
            if _CONFIG.value is None:
                summarize(model=_MODEL.value)
            else:
                picture = f"{_default_workdir()}/batch.png"
                summarize(config=_required_config(), model=_MODEL.value, picture=picture)
        case "benchmark":
            benchmark(_required_config())
        case "prepare":
            if _OUTPUT_DIR.value is None:
                raise UserError("--output_dir is missing: name the directory that the shards go to")
            prepare(
                _SOURCE.value,
                _DATA_DIR.value,
                _OUTPUT_DIR.value,
                splits=_SPLITS.value,
                short_side=_SHORT_SIDE.value,
                quality=_QUALITY.value,
                shard_examples=_SHARD_EXAMPLES.value,
                num_threads=_NUM_THREADS.value,
                eval_fraction=_EVAL_FRACTION.value,
            )


def _required_config() -> ConfigDict:
    if _CONFIG.value is None:
        raise UserError(
            "--config is missing: name a recipe, for example --config=configs/quickstart.py"
        )
    recipe.validate(_CONFIG.value)
    return _CONFIG.value


def _default_workdir() -> str:
    return _WORKDIR.value or f"runs/{Path(config_flags.get_config_filename(FLAGS['config'])).stem}"


def _required_workdir() -> str:
    if _WORKDIR.value is None:
        raise UserError(f"--workdir is missing: --mode={_MODE.value} needs the directory of a run")
    return _WORKDIR.value


if __name__ == "__main__":
    sys.exit(main(sys.argv))
