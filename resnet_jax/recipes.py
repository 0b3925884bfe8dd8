"""The recipes that came with the package."""

import ast
from pathlib import Path

FOLDER = "configs"


def bases() -> list[Path]:
    """Returns the directories that hold a folder of recipes: this one, and the package's own."""
    package = Path(__file__).parent
    # A wheel carries the recipes inside the package, a checkout has them beside it.
    return [base for base in (Path(), package, package.parent) if (base / FOLDER).is_dir()]


def shipped() -> dict[str, Path]:
    """Returns name -> file of each recipe: "tutorials/NAME" for one in a folder of that name."""
    folders = [base / FOLDER for base in bases()[:1]]
    found = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for folder in folders
        for path in folder.rglob("*.py")
    }
    return dict(sorted(found.items()))


def headline(path: Path) -> str:
    """Returns the first line of a recipe's docstring, which says what it is."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]
