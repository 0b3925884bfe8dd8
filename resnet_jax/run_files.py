"""The small files of a run: its recipe, its classes, its data, and how it was started.

A power cut may leave them empty or cut short, and people copy and edit them. What can be written
again is set aside and said; what a run cannot do without is an error in a line.
"""

import contextlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import data
from resnet_jax.environment import describe_start
from resnet_jax.errors import UserError, writing
from resnet_jax.files import write_atomically

CONFIG, CLASSES, STARTS, DATA = "config.json", "classes.txt", "environment.json", "data.json"

BUCKETS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
"""Scheme of an address -> the package that reads and writes there for etils.epath."""

TRAINING, EVALUATION = "training", "evaluation"

Say = Callable[[str], None]


def check_backend(workdir: epath.PathLike, field: str = "--workdir") -> None:
    """Checks that this machine can reach the place of a run.

    Args:
      workdir: of the run.
      field: that names it, for the message.

    Raises:
      UserError: it is in a bucket whose package is not installed.
    """
    scheme, found, _ = str(workdir).partition("://")
    try:
        epath.Path(workdir).exists()
    except ImportError as error:
        package = BUCKETS.get(scheme) if found else None
        remedy = f"pip install {package}" if package else str(error)
        raise UserError(
            f"{field}={workdir}: the package for {scheme}:// is missing: {remedy}"
        ) from error


def read_config(workdir: epath.PathLike) -> ConfigDict:
    """Reads the recipe that a run keeps.

    Raises:
      UserError: there is no run in `workdir`, its config.json is damaged, or the package for its
        bucket is missing.
    """
    check_backend(workdir)
    path = epath.Path(workdir) / CONFIG
    content = _read(path)
    if content is None:
        raise UserError(
            f"--workdir={workdir} holds no run (no {CONFIG}): train one, or name another directory"
        )
    try:
        config = config_lib.from_json(content.decode())
        config_lib.check_fields(config)
    except (ValueError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): restore it from a copy, or use another --workdir"
        ) from error
    return config


def read_classes(workdir: epath.PathLike) -> tuple[str, ...]:
    """Reads the names of a run's classes, in the order of the logits.

    Raises:
      UserError: they are missing or damaged.
    """
    path = epath.Path(workdir) / CLASSES
    names = _class_names(path)
    if names is None:
        raise UserError(
            f"{path} is missing or damaged: restore it from a copy, or start the training command "
            "again, which writes it"
        )
    return names


def data_changes(workdir: epath.PathLike, use: str, source: data.Source) -> list[str]:
    """Returns how images differ from those that a run began with, as far as it has noted.

    Args:
      workdir: of the run.
      use: `TRAINING` or `EVALUATION`.
      source: what is there now.
    """
    workdir = epath.Path(workdir)
    known = (_fingerprints(workdir) or {}).get(use)
    if known is not None:
        try:
            return data.describe_changes(known, source)
        except (ValueError, TypeError, LookupError, AttributeError, zlib.error):
            return [f"they are not those of {DATA}, which is damaged and does not tell more"]
    if use == TRAINING:
        before = ((read_starts(workdir) or [{}])[-1]).get("train_images", len(source))
        return [] if before == len(source) else [f"{before} images became {len(source)}"]
    return []


def check_data(
    workdir: epath.PathLike,
    training: data.Source,
    evaluation: data.Source | None = None,
    *,
    accept_change: bool = False,
) -> list[str]:
    """Checks that the images are those that the run in a workdir began with.

    Args:
      workdir: of the run.
      training, evaluation: what it is given now.
      accept_change: whether to go on with other images; the classes must be the same.

    Returns:
      A line for each change that is accepted.

    Raises:
      UserError: the images are others; the message says what has changed.
    """
    _check_classes(epath.Path(workdir), training)
    accepted = []
    for use, source in ((TRAINING, training), (EVALUATION, evaluation)):
        if source is None:
            continue
        changes = data_changes(workdir, use, source)
        if changes and not accept_change:
            raise UserError(
                f"--workdir={workdir}: the {use} images ({source.name} {source.split}) have "
                f"changed since the run began: {'; '.join(changes)}: give it the data that it "
                "began with, take another --workdir, or go on with --accept_data_change"
            )
        accepted += [f"the {use} images have changed: {change}" for change in changes]
    return accepted


def describe(
    workdir: epath.PathLike,
    config: ConfigDict,
    training: data.Source,
    evaluation: data.Source | None = None,
    *,
    changes: Sequence[str] = (),
    say: Say = print,
) -> None:
    """Writes the files of a run, with an entry for this start.

    Args:
      workdir: of the run.
      config: the recipe in force.
      training, evaluation: the images.
      changes: a line for each thing that is not as the run began.
      say: called with a line for a file that is damaged.

    Raises:
      UserError: the directory cannot be written to.
    """
    workdir = epath.Path(workdir)
    sources = {TRAINING: training, EVALUATION: evaluation}
    prints = {
        use: data.fingerprint(source) for use, source in sources.items() if source is not None
    }
    starts, known = read_starts(workdir), _fingerprints(workdir)
    start = describe_start(len(training), training.image_shape) | {"changes": list(changes)}
    with writing(f"--workdir={workdir}"):
        workdir.mkdir(parents=True, exist_ok=True)
        for name, found in ((STARTS, starts), (DATA, known)):
            if found is None:
                (workdir / name).replace(workdir / f"{name}.damaged")
                say(f"{name} is damaged: moved aside as {name}.damaged, and begun again")
        if starts and known == {}:
            say("which images this run began with was not noted: those of now are, from here on")
        for name, text in (
            (STARTS, json.dumps([*(starts or []), start], indent=2) + "\n"),
            (DATA, json.dumps(prints) + "\n"),
            (CONFIG, config_lib.to_json(config)),
            (CLASSES, "".join(f"{name}\n" for name in training.classes)),
        ):
            write_atomically(workdir / name, text)


def note_end(
    workdir: epath.PathLike, goodput: Mapping[str, Any], check_owner: Callable[[], None]
) -> None:
    """Adds to what the last start noted where its time went.

    Nothing happens where that cannot be written, or another run has the workdir by now: a run that
    ends has worse to tell then.

    Args:
      workdir: of the run.
      goodput: from `Goodput.record`.
      check_owner: raises `UserError` where the directory is another run's.
    """
    workdir = epath.Path(workdir)
    with contextlib.suppress(OSError, UserError):
        check_owner()
        if starts := read_starts(workdir):
            starts[-1]["goodput"] = dict(goodput)
            write_atomically(workdir / STARTS, json.dumps(starts, indent=2) + "\n")


def _check_classes(workdir: epath.Path, source: data.Source) -> None:
    classes = _class_names(workdir / CLASSES)
    # A file that lost its end is written again from the data, of which the rest is known.
    if classes is not None and classes != tuple(source.classes[: len(classes)]):
        raise UserError(
            f"--workdir={workdir} was trained on {len(classes)} classes ({_ends(classes)}), which "
            f"are not the {len(source.classes)} ({_ends(source.classes)}) of {source.name} "
            f"{source.split}: give it the data that it began with, or take another --workdir"
        )


def read_starts(workdir: epath.Path) -> list[dict[str, Any]] | None:
    """Returns what each start of a run has noted, None where the file is damaged."""
    starts = _parse(workdir / STARTS, [])
    is_whole = isinstance(starts, list) and all(isinstance(start, dict) for start in starts)
    return starts if is_whole else None


def _fingerprints(workdir: epath.Path) -> dict[str, Any] | None:
    """Returns the fingerprint of the images of each use, None where the file is damaged."""
    known = _parse(workdir / DATA, {})
    is_whole = isinstance(known, dict) and all(
        isinstance(print_, dict) for print_ in known.values()
    )
    return known if is_whole else None


def _class_names(path: epath.Path) -> tuple[str, ...] | None:
    """Returns the lines of classes.txt, None where it is absent or was not written whole."""
    content = _read(path)
    if content is None or not content.endswith(b"\n") or b"\0" in content:
        return None
    try:
        return tuple(content.decode().split("\n")[:-1])
    except UnicodeDecodeError:
        return None


def _parse(path: epath.Path, absent: Any) -> Any:
    content = _read(path)
    try:
        return absent if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None


def _read(path: epath.Path) -> bytes | None:
    """Returns a file's content, None where there is no such file.

    Raises:
      UserError: it is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): make it readable, or use another"
            " --workdir"
        ) from error


def _ends(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} .. {names[-1]}"
