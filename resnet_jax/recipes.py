"""The recipes that came with the package."""

import ast
import re
import runpy
from pathlib import Path

from ml_collections import ConfigDict

from resnet_jax.errors import first_line

FOLDER = "configs"


def bases() -> list[Path]:
    """Returns the directories that hold a folder of recipes: this one, and the package's own."""
    package = Path(__file__).parent
    # A wheel carries the recipes inside the package, a checkout has them beside it.
    return [base for base in (Path(), package, package.parent) if (base / FOLDER).is_dir()]


def shipped() -> dict[str, Path]:
    """Returns name -> file of each recipe: "tutorials/NAME" for one in a folder of that name.

    A recipe here goes before one of that name that came with the package.
    """
    folders = [base / FOLDER for base in reversed(bases())]
    found = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for folder in folders
        for path in folder.rglob("*.py")
        if _is_recipe(path)
    }
    return dict(sorted(found.items()))


def find(name: str) -> Path | None:
    """Returns the file of a recipe, looked for here and among those that came with the package.

    Args:
      name: of the file, or of the recipe: "quickstart" for configs/quickstart.py.
    """
    for candidate in (Path(name), *(base / name for base in bases())):
        if candidate.is_file():
            return candidate
    return shipped().get(name)


def headline(path: Path) -> str:
    """Returns the first paragraph of a recipe's docstring, which says what it is, as one line."""
    return " ".join(_docstring(path).partition("\n\n")[0].split())


def told(path: Path) -> dict[str, str]:
    """Returns what a recipe's docstring says behind "Expected:" and "Cost:", without line ends."""
    words = " ".join(_docstring(path).split())
    _, *parts = re.split(r"(Expected|Cost): ", words)
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def load(path: Path) -> ConfigDict:
    """Returns the recipe of a file."""
    return runpy.run_path(str(path))["get_config"]()


def _is_recipe(path: Path) -> bool:
    # Another project's folder of that name may hold other files, and links to what is gone.
    try:
        return b"def get_config(" in path.read_bytes()
    except OSError:
        return False


def _docstring(path: Path) -> str:
    try:
        return ast.get_docstring(ast.parse(path.read_bytes(), path.name)) or ""
    except (SyntaxError, ValueError) as error:  # half edited
        return f"Cannot be read: {first_line(error)}."
