"""The recipe of a run as tables, and how it differs: from its file, or between runs."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_jax import config as config_lib
from resnet_jax import recipes
from resnet_jax.errors import first_line
from resnet_jax.report.parts import Table
from resnet_jax.report.record import Record

_COLUMNS = 3


def tables(record: Record) -> tuple[Table, ...]:
    """Returns how a run's recipe differs from its file, and all of its fields."""
    flat = dict(config_lib.flatten(record.config))
    usual = dict(config_lib.flatten(config_lib.defaults()))

    def rows(at_default: bool) -> list[tuple[str, str, str]]:
        return [
            (name, _text(value), config_lib.field_of(name).help)
            for name, value in flat.items()
            if (value == usual[name]) == at_default
        ]

    header, caption = ("field", "value", "what it is"), "As config.json has it."
    return (
        _from_file(record, flat),
        Table("The recipe, where it is not the default", caption, header, rows(False)),
        Table("Fields at their default", caption, header, rows(True), is_folded=True),
    )


def _from_file(record: Record, flat: dict[str, Any]) -> Table:
    title, header = "Differences from the recipe's file", ("field", "in the file", "in the run")
    caption = (
        "What the command changed, and what the data and the devices decided, of the file that the"
        " run was started with last."
    )
    path, why = _file(record)
    if path is None:
        return Table(title, caption, header, why=why)
    try:
        ours = dict(config_lib.flatten(recipes.load(path)))
    except Exception as error:  # A recipe is a program, and may by now be one of another version.
        reason = first_line(error)
        return Table(title, caption, header, why=f"{path} cannot be read: {reason}")
    rows = [
        (name, _text(ours.get(name)), _text(value))
        for name, value in flat.items()
        if value != ours.get(name)
    ]
    why = "" if rows else f"The run has every field as in {path}."
    return Table(f"Differences from {path.as_posix()}", caption, header, rows, why)


def _file(record: Record) -> tuple[Path | None, str]:
    """Returns the file of the recipe that a run was started with last, or why there is none."""
    command = record.last_start.get("command", [])
    pairs = zip(command, [*command[1:], ""], strict=True)
    named = [
        re.sub(r"^--?config=", "", word) if "=" in word else after
        for word, after in pairs
        if re.fullmatch(r"--?config(=.*)?", word)
    ]
    if not named:
        return None, "The run has not noted a command with --config."
    try:
        path = recipes.find(os.path.expanduser(named[-1]))
        if path is None or path.suffix != ".py" or "def get_config(" not in path.read_text("utf-8"):
            return None, f"There is no recipe {named[-1]} here any more."
        # A recipe is a program, and the workdir may be somebody else's.
        if path.resolve().is_relative_to(Path(record.workdir).resolve()):
            return None, f"{path} lies in the workdir: no program that came with a run is started."
    except (OSError, UnicodeDecodeError) as error:
        return None, f"The recipe {named[-1]} cannot be read: {error}"
    return path, ""


def command(record: Record) -> str:
    """Returns the command of the last start, as one types it; "" where it was not noted."""
    words = record.last_start.get("command", [])
    if not words:
        return ""
    name = Path(words[0]).name
    if name == "__main__.py":
        program = ["python", "-m", "resnet_jax"]
    else:
        program = ["python", name] if name.endswith(".py") else [name]
    return shlex.join([*program, *words[1:]])


def environment(record: Record) -> Table:
    """Returns each start of a run with the machine and the versions that it had."""
    title, header = "Starts", ("start", "when", "devices", "commit", "versions", "changed")
    caption = "A start that goes on from a checkpoint has a row of its own."
    if not record.starts:
        why = "environment.json is missing or damaged."
        return Table(title, caption, header, why=why)
    rows = []
    for number, start in enumerate(record.starts, 1):
        versions = {"python": start.get("python"), **start.get("packages", {})}
        rows.append(
            (
                number,
                str(start.get("time", "")).replace("T", " ").replace("+00:00", " UTC"),
                f"{start.get('devices', '')}, {start.get('cores', '?')} cores",
                str(start.get("commit") or "")[:12],
                ", ".join(f"{name} {version}" for name, version in versions.items()),
                "; ".join(start.get("changes", [])),
            )
        )
    return Table(title, caption, header, rows)


def differing(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Returns the fields in which runs differ -> the value of each run."""
    flats = [dict(config_lib.flatten(record.config)) for record in records]
    return {
        name: [flat[name] for flat in flats]
        for name in flats[0]
        if any(flat[name] != flats[0][name] for flat in flats)
    }


def comparison(records: Sequence[Record]) -> Table:
    """Returns the fields in which runs differ: of two or three a column a run, of more a row."""
    fields = {name: [*map(_text, values)] for name, values in differing(records).items()}
    names = [record.name for record in records]
    title, caption = "Differences of the recipes", "Every field that is not the same in all runs."
    if not fields:
        return Table(title, caption, (), why="All runs have the same recipe.")
    if len(records) > _COLUMNS:
        rows = [*zip(names, *fields.values(), strict=True)]
        return Table(title, caption, ("run", *fields), rows)
    rows = [(name, *values) for name, values in fields.items()]
    return Table(title, caption, ("field", *names), rows)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
