"""A benchmark whose peer is not installed says what to install."""

import subprocess
import sys

import pytest
from running import ROOT


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("import no_such_peer.part", 'needs no_such_peer: pip install -e ".[bench]"'),
        ("import benchmarks.no_such_file", "Traceback"),
        ("1 / 0", "Traceback"),
    ],
)
def test_a_missing_package_is_named_with_the_command_and_other_errors_are_as_ever(statement, words):
    done = subprocess.run(
        [sys.executable, "-c", f"import benchmarks; {statement}"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert ("Traceback" in done.stderr) == (words == "Traceback")
