"""`--mode=predict`: names what pictures show."""

import csv
import dataclasses
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence

from absl import flags
from tqdm import tqdm

from resnet_jax import classifier, run
from resnet_jax.classifier import Classifier, Prediction
from resnet_jax.commands import Arguments, Verb, define_crop_flag, define_network_flags
from resnet_jax.data.sources import pictures
from resnet_jax.data.sources.tree import as_text, named, printable
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.errors import UserError
from resnet_jax.training.reporting.display import Display

FORMATS = ("table", "csv", "jsonl")
_SHOWS_PROGRESS = 100
_NAMES_AT_MOST, _WIDEST_CLASS = 5, 20


def define_flags(values: flags.FlagValues) -> None:
    define_network_flags(values)
    define_crop_flag(values)
    flags.DEFINE_integer(
        "top", 3, "how many classes of each picture", lower_bound=1, flag_values=values
    )
    flags.DEFINE_enum(
        "format",
        "table",
        FORMATS,
        "table for people; csv or jsonl (one object a line) for programs",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "eval_size",
        None,
        "side in pixels to show pictures at; default: the network's",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        classifier.BATCH_SIZE,
        "pictures a step",
        lower_bound=1,
        flag_values=values,
    )


def predict(network: Classifier, paths: Sequence[str], *, top: int, form: str) -> None:
    """Prints what a network says of picture files, in their order, as soon as it is known.

    Answers go to standard output; a progress bar, and each file that is skipped, to standard error.

    Args:
      network: that is asked.
      paths: of the files.
      top: how many classes of each.
      form: one of `FORMATS`.

    Raises:
      UserError: some files are no pictures; raised after all others have been answered.
    """
    # Programs find a file by its name, which on a terminal must not do anything.
    names = [printable(path) if form == "table" else as_text(path) for path in paths]
    top = min(top, network.model.num_classes)
    widths = (
        max(map(len, names)),
        min(max(map(len, network.description.classes), default=0), _WIDEST_CLASS),
    )
    skipped = []
    display = Display()
    if form == "csv":
        ranks = range(1, top + 1)
        header = [f"{part}_{rank}" for rank in ranks for part in ("class", "probability")]
        display.say(_csv_line(["file", *header]))
    if len(paths) >= _SHOWS_PROGRESS:
        display.start("predicting", len(paths), unit="picture")
    answers = network.predict_each(paths, top=top, on_error="skip", say=_say_aside)
    for path, name, answer in zip(paths, names, answers, strict=True):
        if answer is None:
            skipped.append(printable(path))
        else:
            display.say(_line(name, answer, form, widths))
        if len(paths) >= _SHOWS_PROGRESS:
            display.tick()
    display.stop()
    if skipped:
        raise UserError(
            f"{len(skipped):,} of {len(names):,} files are no readable pictures and were skipped:"
            f" {named(skipped, _NAMES_AT_MOST)}; restore or leave them out"
        )


def _say_aside(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _line(name: str, answer: Prediction, form: str, widths: tuple[int, int]) -> str:
    pairs = list(zip(answer.classes, answer.probabilities, strict=True))
    if form == "csv":
        return _csv_line([name, *(cell for kind, p in pairs for cell in (kind, f"{p:.6f}"))])
    if form == "jsonl":
        top = [{"class": kind, "probability": round(p, 6)} for kind, p in pairs]
        return json.dumps({"file": name, "top": top}, ensure_ascii=False)
    cells = (f"{kind:<{widths[1]}} {100 * p:5.1f} %" for kind, p in pairs)
    return f"{name:<{widths[0]}}  {'   '.join(cells)}"


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _words(words: Sequence[str]) -> list[str]:
    """Returns the words of the command line, with the lines of standard input for "-"."""
    if not words:
        raise UserError(
            "--mode=predict needs pictures: name files, folders or patterns such as 'new/*.jpg', or"
            " - to read paths from standard input"
        )
    given = []
    for word in words:
        given += _lines_of_stdin() if word == "-" else [word]
    if not given:
        raise UserError("-: standard input names no file; give it one path a line")
    return given


def _lines_of_stdin() -> list[str]:
    # Bytes: a path need not be UTF-8, and may hold what Python, but no file system, ends lines at.
    lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
    return [line for line in (line.removesuffix("\r") for line in lines) if line]


def main(arguments: Arguments) -> None:
    paths, notes = pictures.find(_words(arguments.words))
    for note in notes:
        _say_aside(note)
    named = classifier.Named.of(arguments)
    if named.workdir is not None:
        run.check_takes_pictures(named.workdir)
    prepare_runtime(named.precision)
    model, variables, description = named.load()
    shown = {"eval_size": arguments.eval_size, "crop": arguments.eval_crop}
    given = {name: value for name, value in shown.items() if value is not None}
    description = dataclasses.replace(description, **given)
    network = Classifier(model, variables, description, batch_size=arguments.batch_size)
    try:
        predict(network, paths, top=arguments.top, form=arguments.format)
    except BrokenPipeError:
        # Whoever reads has seen enough, such as `head`; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


VERB = Verb(
    "names what pictures show: files, folders, patterns, or - for paths on standard input",
    main,
    define_flags,
    takes_words=True,
    several_processes=False,
)
