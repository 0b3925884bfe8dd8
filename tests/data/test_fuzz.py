"""Broken files end in the documented errors, within a bounded address space."""

import os
import pathlib
import subprocess
import sys


def test_broken_files_end_in_documented_errors(tmp_path):
    script = pathlib.Path(__file__).with_name("fuzz.py")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(script), "--cases=2400"]
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in ("image", "idx", "tfrecord", "array_record"):
        assert f"'{kind}'" in done.stdout
