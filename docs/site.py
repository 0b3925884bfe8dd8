"""The site that `mkdocs build` makes of the repository's own pages: nothing is written twice.

Pages keep the places that they have in the repository, so that their links go on working. What
they link to comes along: a file as it is, a folder as a page that lists it. The pages on the verbs,
on the fields of a recipe and on the Python API are made from the code.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import resnet_jax
from resnet_jax import commands
from resnet_jax import config as config_lib

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/*.md", "results/*.md")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts each verb's page below "Command line"."""
    pages = ["verbs/index.md", *(f"verbs/{name}.md" for name in commands.names()), "fields.md"]
    for entry in config.nav:
        if "Command line" in entry:
            entry["Command line"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces what MkDocs found in docs/ by the pages, what they link to, and the made ones."""
    made = {**_verbs(), "fields.md": _fields(), "api.md": _api()}
    pages = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    linked = {target for page in pages for target in _targets(page)} - set(pages)
    for folder in sorted({ROOT / "results"} | {path for path in linked if path.is_dir()}):
        listed = _listed(folder)
        made[f"{_name(folder)}/index.md"] = _listing(folder, listed)
        linked |= set(listed) - set(pages)
    found = [File.generated(config, name, content=text) for name, text in made.items()]
    for path in [*pages, *sorted(path for path in linked if path.is_file())]:
        found.append(File.generated(config, _name(path), abs_src_path=str(path)))
    # The theme's own pictures and scripts were there before this.
    return Files(
        [file for file in files if not file.src_uri.endswith((".md", ".py", ".sbatch"))] + found
    )


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lets links to a folder go to the page that lists it."""
    here = (ROOT / page.file.src_uri).parent

    def complete(link: re.Match) -> str:
        is_folder = (here / link[1]).is_dir()
        return f"]({link[1].rstrip('/')}/index.md)" if is_folder else link[0]

    return LINK.sub(complete, markdown)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _targets(page: Path) -> list[Path]:
    """Returns the files and folders of the repository that a page links to."""
    targets = [(page.parent / link[1]).resolve() for link in LINK.finditer(page.read_text())]
    return [target for target in targets if target.exists()]


def _listed(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix in (".md", ".py"))
    return sorted(path for path in found if path.stem != "__init__")


def _listing(folder: Path, listed: list[Path]) -> str:
    """Returns a page with a line for each file of a folder: its name and its own first line."""
    lines = [f"# {_name(folder)}", ""]
    for path in listed:
        title = path.read_text().lstrip('#" \n').splitlines()[0].rstrip('"')
        lines.append(f"- [{path.name}]({path.name}): {title}")
    return "\n".join(lines) + "\n"


def _verbs() -> dict[str, str]:
    """Returns the pages on the command line: one lists the verbs, and each has its own."""
    pages = {f"verbs/{name}.md": _verb(name) for name in commands.names()}
    lines = ["# Command line", "", "`python launch.py --mode=VERB`; the default is `train`.", ""]
    lines += [f"- [{name}]({name}.md) {commands.load(name).help}" for name in commands.names()]
    return {"verbs/index.md": "\n".join(lines) + "\n", **pages}


def _verb(name: str) -> str:
    verb = commands.load(name)
    lines = [f"# {name}", "", f"`python launch.py --mode={name}` {verb.help}.", ""]
    if verb.takes_recipe:
        lines += ["It takes a recipe, `--config=FILE`, and `--config.FIELD=VALUE`.", ""]
    flags = commands.flags_of(verb)
    if len(flags):
        rows = [(f"--{flag}", flags[flag].default, flags[flag].help) for flag in sorted(flags)]
        lines += _table("flag", rows)
    return "\n".join(lines) + "\n"


def _fields() -> str:
    """Returns the page of all fields of a recipe."""
    lines = ["# Fields of a recipe", "", "On the command line: `--config.FIELD=VALUE`.", ""]
    rows = [
        (name, value, config_lib.field_of(name).help)
        for name, value in config_lib.flatten(config_lib.defaults())
    ]
    return "\n".join([*lines, *_table("field", rows)]) + "\n"


def _table(kind: str, rows: list[tuple[str, Any, str | None]]) -> list[str]:
    """Returns the lines of a table of (name, default, what it is)."""
    lines = [f"| {kind} | default | what it is |", "|---|---|---|"]
    for name, value, about in rows:
        default = "" if value is None else f"`{value}`"
        told = " ".join((about or "").split()).replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{name}` | {default} | {told} |")
    return lines


def _api() -> str:
    names = "\n\n".join(f"::: resnet_jax.{name}" for name in resnet_jax.__all__)
    return f"# Python API\n\n`import resnet_jax` shows these names.\n\n{names}\n"
