"""Broken files by the ten thousand."""

import os
from pathlib import Path

from running import ROOT, run


def test_twenty_thousand_broken_files_end_in_documented_errors(tmp_path):
    script = Path(__file__).parents[1] / "data" / "fuzz.py"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    done = run([script], "--cases=20000", timeout=3000, PYTHONPATH=paths, **cache)
    assert done.returncode == 0, done.stderr[-2000:]


def test_twenty_thousand_broken_files_of_runs_end_in_documented_errors():
    script = Path(__file__).parents[1] / "fuzz_run_files.py"
    done = run([script], "--cases=20000", "--seed=1", timeout=3000, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr[-2000:]
