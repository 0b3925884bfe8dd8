"""A page as one HTML file that asks nobody for anything, and its pictures as PNGs beside it."""

import base64
import importlib.resources
from collections.abc import Iterator
from pathlib import Path

import resnet_jax
from resnet_jax.errors import writing
from resnet_jax.files import write_atomically
from resnet_jax.report.parts import Card, Figure, Gallery, Page

FILE, FOLDER = "report.html", "report"


def prepare(directory: Path) -> None:
    """Makes the folders of a page, before work is put into it; raises `UserError` as `write`."""
    with writing(f"--output_dir={directory}"):
        (directory / FOLDER).mkdir(parents=True, exist_ok=True)


def write(page: Page, directory: Path) -> Path:
    """Writes report.html and, into the folder report/, its pictures.

    Returns:
      The page.

    Raises:
      UserError: the directory cannot be written to.
    """
    text = render(page)
    prepare(directory)
    with writing(f"--output_dir={directory}"):
        for old in _earlier(page, directory / FOLDER):
            old.unlink()
        for name, png in pictures(page):
            (directory / FOLDER / f"{name}.png").write_bytes(png)
        write_atomically(directory / FILE, text)
    return directory / FILE


def pictures(page: Page) -> Iterator[tuple[str, bytes]]:
    """Yields name and PNG of every picture."""
    for section in page.sections:
        for part in section.parts:
            if isinstance(part, Figure) and part.png is not None:
                yield part.name, part.png
            if isinstance(part, Gallery):
                for number, card in enumerate(part.cards, 1):
                    yield f"{part.name}_{number:02d}", card.png


def _earlier(page: Page, folder: Path) -> Iterator[Path]:
    """Yields the pictures that an earlier page of this kind left."""
    for section in page.sections:
        for part in section.parts:
            if isinstance(part, Figure):
                yield from folder.glob(f"{part.name}.png")
            if isinstance(part, Gallery):
                yield from folder.glob(f"{part.name}_[0-9][0-9].png")


def render(page: Page) -> str:
    """Returns a page as HTML."""
    import jinja2

    source = importlib.resources.files("resnet_jax.report").joinpath("page.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(source)
    version = resnet_jax.__version__
    return template.render(page=page, data_uri=_data_uri, kind=_kind, version=version)


def _data_uri(picture: Figure | Card) -> str:
    assert picture.png is not None
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def _kind(part: object) -> str:
    return type(part).__name__.lower()
