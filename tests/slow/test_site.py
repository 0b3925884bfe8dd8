"""The documentation as a site: it builds, its links lead somewhere, and it asks nobody else."""

import re
import subprocess
import sys

import pytest
from running import ROOT

pytest.importorskip("mkdocs")


def test_the_site_builds_without_a_dead_link_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]*)"', page.read_text()
        )
        assert not [address for address in loaded if "canonical" not in address], page
    for page in tmp_path.rglob("*.html"):
        for target in re.findall(r'(?:src|href)="(?!https?:)([^"#?:]+)[^"]*"', page.read_text()):
            # The page for missing addresses has them from the site's root on.
            base = tmp_path if target.startswith("/") else page.parent
            assert (base / target.lstrip("/")).exists(), f"{page.relative_to(tmp_path)}: {target}"
