"""The pages on networks say what is so: their code runs, their table is current."""

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = re.findall(
    r"^## (.+?)$|^```python\n(.+?)^```", (DOCS / "importing.md").read_text(), re.S | re.M
)
TITLES = [title for title, code in BLOCKS if title]
CODE = {
    TITLES[sum(bool(title) for title, _ in BLOCKS[:at]) - 1]: code
    for at, (_, code) in enumerate(BLOCKS)
    if code
}


@pytest.mark.parametrize("title", CODE)
def test_code_on_the_importing_page_runs(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(CODE[title], title, "exec"), {"__name__": "importing"})


@pytest.mark.parametrize(
    "title", ["A detector's backbone", "One-channel images", "A custom stage out of the blocks"]
)
def test_the_examples_stay_under_twenty_lines(title):
    lines = [
        line
        for line in CODE[title].splitlines()
        if line and not line.startswith(("import", "from"))
    ]
    assert len(lines) < 20


def test_the_page_on_models_is_current():
    write_page = runpy.run_path(str(DOCS / "write_models.py"))["write_page"]
    assert (DOCS / "models.md").read_text() == write_page()
