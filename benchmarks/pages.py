"""Results: a record in JSON for each measurement, and the one renderer that makes pages of them.

    python -m benchmarks.pages     # every page of results/ again, from the records

A record has a "name" (of its files), a "title", "about" (its section of docs/measurements.md), the
"command", and "tables": caption -> rows, each {column: value}. A value is text, a number, or a list
[median, lowest, highest]. What was measured has "date" and "machine" too, and may have a "note"
and raw figures.
"""

import argparse
import datetime
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, machine

Row = dict[str, Any]


def parser(doc: str, rounds: int | None = None) -> argparse.ArgumentParser:
    """Returns a parser of what measurements take: --output, and --rounds by default so many."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=doc, formatter_class=raw)
    made.add_argument("--output", type=folder, help="of record and page; without it they are shown")
    if rounds:
        made.add_argument("--rounds", type=int, default=rounds, help="turns of each contestant")
    return made


def folder(path: str) -> Path:
    """Makes a folder at once: one that cannot be written to is known before measuring."""
    Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def record(name: str, title: str, about: str, *packages: str) -> dict[str, Any]:
    """Returns a record without tables, to be made before measuring."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    about_it = {"name": name, "title": title, "about": about, "command": command_line(sys.argv)}
    return about_it | {"date": date, "machine": machine(*packages), "tables": {}}


def save(result: dict[str, Any], output: Path | None) -> None:
    """Prints a record's page, and writes record and page where there is a folder."""
    print(page(result), flush=True)
    if output is not None:
        # Six digits of each measured number.
        short = json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.6g}"))
        text = json.dumps(short, indent=1, ensure_ascii=False)
        (output / f"{result['name']}.json").write_text(text + "\n")
        (output / f"{result['name']}.md").write_text(page(short))


def page(result: dict[str, Any]) -> str:
    """Returns a record as Markdown."""
    lines = [f"# {result['title']}", "", f"`{result['command']}`", ""]
    if host := result.get("machine"):
        facts = [f"{result['date']}, {host['cores']} cores ({host['cpu']})", host.get("device")]
        facts += [", ".join(f"{name} {number}" for name, number in host["versions"].items())]
        load = [f"load {host['load_before']:.1f} before the run"] if "load_before" in host else []
        facts += [host["xla_flags"], *load, result.get("note")]
        lines += ["; ".join(filter(None, facts)) + ".", ""]
    lines += [
        f"What is measured, and how: [measurements](../docs/measurements.md#{result['about']})."
    ]
    lines += ["", f"![{result['title']}]({result['picture']})"] if "picture" in result else []
    for caption, rows in result["tables"].items():
        lines += ["", f"## {caption}", "", *table(rows)]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """Returns the lines of a table, but for columns of which no row has a value."""
    columns = dict.fromkeys(column for row in rows for column in row)
    columns = [name for name in columns if any(row.get(name) is not None for row in rows)]
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    return [f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *cells]]


def cell(value: Any) -> str:
    """Returns a value as text: numbers with three digits, a range in brackets after its median."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "{} ({} to {})".format(*map(cell, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "/")


def command_line(argv: Sequence[str]) -> str:
    """Returns a command as a reader would type it in a clone: no places of this machine."""
    program = Path(argv[0])
    is_ours = program.parent.name == "benchmarks"
    start = f"python -m benchmarks.{program.stem}" if is_ours else "python launch.py"
    text = re.sub(r"(--config[^ =]*) (?!-)", r"\1=", " ".join(["", *map(shlex.quote, argv[1:])]))
    text = re.sub(r" --(workdir|output)[= ]\S+", "", text)
    text = re.sub(r"(--config\.data\.dir=)\S+", r"\1DIR", text)
    text = re.sub(r"(--tensorflow_python[= ])\S+", r"\1PYTHON", text)
    return start + re.sub(r"(--config=)\S*configs/", r"\1configs/", text)


def main() -> None:
    for path in sorted((ROOT / "results").glob("*.json")):
        path.with_suffix(".md").write_text(page(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
