"""`--mode=report`: a page that explains a run, or compares several."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags
from etils import epath

from resnet_jax import run
from resnet_jax.commands import Arguments, Verb, local_directory
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.errors import UserError
from resnet_jax.report import page, single
from resnet_jax.report.asking import ask
from resnet_jax.report.comparison import compare
from resnet_jax.report.record import Record
from resnet_jax.report.style import check_packages
from resnet_jax.run_files import CONFIG
from resnet_jax.training.reporting.display import Display


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "the run or the sweep; more of them may follow", flag_values=values
    )
    flags.DEFINE_string(
        "which", "best", "one run's checkpoint: best, last or a step", flag_values=values
    )
    flags.DEFINE_string(
        "data_dir", None, "where the data is, if not where it was", flag_values=values
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        "where report.html goes; default: the workdir, of several the folder that holds them all",
        flag_values=values,
    )


def report(
    workdirs: Sequence[str],
    *,
    which: str = "best",
    data_dir: str | None = None,
    output_dir: str | None = None,
) -> Path:
    """Writes a page on a run, or on several side by side, and returns its path.

    Args:
      workdirs: of runs and sweeps.
      which: the checkpoint of one run: "best", "last" or a step.
      data_dir: where the data of one run is; None: where it was.
      output_dir: where the page goes; None: the workdir, of several the folder that holds them.

    Raises:
      UserError: there is no such run or checkpoint, a package is missing, or the page cannot be
        written.
    """
    check_packages()
    found = _each_once(workdir for given in workdirs for workdir in runs_in(given))
    directory = local_directory("output_dir", str(output_dir or _holding(workdirs)))
    display = Display()
    if len(found) == 1:
        record = Record.read(found[0])
        prepare_runtime(record.config.precision, record.config.deterministic)
        step = run.pick_step(run.open_checkpoints(found[0], record.config), which)
        page.prepare(directory)
        made = single.describe(record, ask(found[0], step, data_dir, display))
    else:
        for flag, is_given in (("which", which != "best"), ("data_dir", data_dir is not None)):
            if is_given:
                raise UserError(f"--{flag} is for one run, not for {len(found)}: leave it out")
        shared = _holding(found)
        made = compare([Record.read(path, _within(path, shared)) for path in found])
    path = page.write(made, directory)
    display.say(f"written: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return path


def _each_once(workdirs: Iterable[str]) -> list[str]:
    """Returns directories without those that were named before, be it by another path."""
    found: dict[str, str] = {}
    for workdir in workdirs:
        found.setdefault(workdir if "://" in workdir else os.path.realpath(workdir), workdir)
    return list(found.values())


def _holding(workdirs: Sequence[str]) -> str:
    """Returns the only workdir, or the folder that holds all of them."""
    if len(workdirs) == 1:
        return workdirs[0]
    for workdir in workdirs:
        if "://" in workdir:
            return workdir.rpartition("/")[0]
    return os.path.commonpath(map(os.path.abspath, workdirs))


def _within(path: str, folder: str) -> str:
    """Returns a path as seen from a folder; as it is where one of them is in a bucket."""
    return path if "://" in path + folder else os.path.relpath(path, folder)


def runs_in(workdir: str) -> list[str]:
    """Returns a run by itself, or those of a sweep in the order of their names.

    Raises:
      UserError: there is neither.
    """
    path = epath.Path(workdir)
    if (path / CONFIG).exists():
        return [workdir]
    members = path.iterdir() if path.is_dir() else ()
    found = sorted(str(member) for member in members if (member / CONFIG).exists())
    if not found:
        raise UserError(
            f"--workdir={workdir} holds no run (no {CONFIG}) and no sweep: train one, or name"
            " another directory"
        )
    return found


def main(arguments: Arguments) -> None:
    first = [arguments.workdir] if arguments.workdir is not None else []
    workdirs = [*first, *arguments.words]
    if not workdirs:
        arguments.required("workdir", "a run, a sweep, or several of them")
    report(
        workdirs,
        which=arguments.which,
        data_dir=arguments.data_dir,
        output_dir=arguments.output_dir,
    )


VERB = Verb(
    "writes a page that explains a run, or compares several",
    main,
    define_flags,
    takes_words=True,
    several_processes=False,
)
