"""Draws docs/run.svg, the picture of a run in the README, from what the run prints.

python launch.py --config=quickstart | python docs/draw_run.py
"""

import sys
from html import escape
from pathlib import Path

COMMAND = "$ python launch.py --config=quickstart"
SIZE, LINE, COLUMNS = 13, 19, 118
KEPT_EPOCHS = ("1", "2", "3", "5", "10", "19", "20")


def main() -> None:
    lines = [COMMAND, *_abridged(sys.stdin.read().splitlines())]
    width, height = round(COLUMNS * SIZE * 0.6) + 32, LINE * len(lines) + 28
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#1e2430"/>',
    ]
    for number, line in enumerate(lines):
        colour = "#8fd18f" if line == COMMAND or line.startswith("best:") else "#d7dce5"
        drawn.append(
            f'<text x="16" y="{LINE * (number + 1) + 8}" fill="{colour}"'
            f' xml:space="preserve">{escape(line)}</text>'
        )
    Path(__file__).with_name("run.svg").write_text("\n".join([*drawn, "</svg>", ""]))


def _abridged(lines: list[str]) -> list[str]:
    """Leaves out most of the epochs, and breaks what is wider than the picture."""
    kept = []
    for line in lines:
        epoch = line.partition("/")[0].removeprefix("[epoch ")
        if line.startswith("[epoch ") and epoch not in KEPT_EPOCHS:
            line = "..."
        if line != "..." or kept[-1] != "...":
            kept += [line[:COLUMNS], f"{'':10}{line[COLUMNS:].lstrip()}"][
                : 1 + (len(line) > COLUMNS)
            ]
    return kept


if __name__ == "__main__":
    main()
