"""Every message of a `UserError` that the package can raise, and which of them no test triggers.

    PYTHONPATH=tests python tests/user_errors.py                     lists the messages
    PYTHONPATH=tests python tests/user_errors.py --coverage=.coverage lists those never raised

For the second, the suite has run under coverage (see CONTRIBUTING.md).
"""

import argparse
import ast
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "resnet_jax"
# The exceptions, and what each adds to its message.
KINDS = {
    "UserError": "",
    "NotFinite": "",
    "LockLost": "",
    "CorruptImageError": "; replace or remove it, or train with config.data.on_error='skip'",
}
# Each message of these has to be triggered by a test.
TRIGGERED = ("commands/", "data/", "run.py", "run_files.py", "sweep.py", "__main__.py")


@dataclasses.dataclass(frozen=True)
class Message:
    """A message as it stands in the source.

    Attributes:
      file: of the package, relative to it.
      line, end: the lines of the exception.
      text: the message, with what is filled in between braces.
    """

    file: str
    line: int
    end: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def messages() -> Iterator[Message]:
    """Yields the messages of all exceptions that are made with one."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            kind = ast.unparse(node.func).split(".")[-1]
            if kind in KINDS:
                file = path.relative_to(PACKAGE).as_posix()
                text = _text(node.args[0]) + KINDS[kind]
                yield Message(file, node.lineno, node.end_lineno, text)


def _text(node: ast.expr) -> str:
    """Returns a string as it is written, with braces around what is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        # `f"...; {nearest(...)}".rstrip("; ")` and its like: the string itself.
        return _text(node.func.value)
    inner = node.value if isinstance(node, ast.FormattedValue) else node
    return f"{{{ast.unparse(inner)}}}"


def never_raised(coverage_file: str) -> list[Message]:
    """Returns the messages whose lines no test has run, from what coverage recorded."""
    import coverage

    data = coverage.CoverageData(coverage_file)
    data.read()
    run = {Path(name).resolve(): set(data.lines(name)) for name in data.measured_files()}
    return [
        message
        for message in messages()
        if not run.get(PACKAGE / message.file, set()) & set(range(message.line, message.end + 1))
    ]


def main() -> int:
    """Prints the messages; with --coverage those never raised, and returns 1 if one had to be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--coverage", help="the file that coverage has written")
    file = parser.parse_args().coverage
    shown = never_raised(file) if file else list(messages())
    held = [message for message in shown if message.file.startswith(TRIGGERED)]
    for message in shown:
        print(message)
    print(f"{len(shown)} messages, {len(held)} of them of commands, data and runs")
    return 1 if file and held else 0


if __name__ == "__main__":
    sys.exit(main())
