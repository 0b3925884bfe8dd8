"""Every command of every page, from top to bottom, with fabricated data; about half an hour."""

import pytest
from pages import PAGES, blocks, leave_the_quickstart, prepared, run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pages")
    with prepared(directory) as environment:
        yield directory, environment


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, place):
    leave_the_quickstart(place[0])
    for block in (block for block in blocks(page) if not block.reason):
        said = run(block, *place, timeout=600)
        assert not said, f"{block}\n{block.code}\n{said}"
