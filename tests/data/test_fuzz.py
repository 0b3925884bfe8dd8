"""Broken files end in the documented errors, within a bounded address space."""

import os
import pathlib
import subprocess
import sys


def test_broken_files_end_in_documented_errors(tmp_path):
    script = pathlib.Path(__file__).with_name("fuzz.py")
    paths = [str(script.parents[1]), str(script.parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    command = [sys.executable, str(script), "--cases=4000"]
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in (
        "image",
        "idx",
        "tfrecord",
        "array_record",
        "classes",
        "index",
        "example",
        "names",
    ):
        assert f"'{kind}'" in done.stdout
