"""What tests need to run the command line, and to train in this process."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_jax import config as config_lib
from resnet_jax.__main__ import main
from resnet_jax.training.reporting.logbook import TIMES

ROOT = Path(__file__).parents[1]
QUICK = "--config=configs/quickstart.py"


def run(program, *arguments, timeout=120, **environment):
    """Runs a Python program from the checkout, on one device unless XLA_FLAGS says otherwise."""
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        check=False,
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def output_of(process, timeout=120):
    """Returns what a process has written when it ends; one that does not end is killed."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"no end within {timeout} s: {process.communicate()}") from None


def launch(*arguments, expect=0, **environment):
    """Runs launch.py, which must end with the status `expect`."""
    done = run(["launch.py"], *arguments, **environment)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def error_line(*arguments, **environment):
    """Returns the one line of a command that must fail with status 1 and no traceback."""
    done = launch(*arguments, expect=1, **environment)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def refused(*arguments):
    """Returns the one line of a command that must fail so early that this process may run it."""
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        assert main(["launch.py", *map(str, arguments)]) == 1
    line = errors.getvalue()
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    return line


def slow_where(is_slow, names):
    """Returns names for `parametrize`, those for which `is_slow` is true left to `-m slow`."""
    return [pytest.param(name, marks=pytest.mark.slow if is_slow(name) else ()) for name in names]


def devices(count):
    """Returns the environment of a run on so many devices."""
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def log(workdir):
    """Returns the lines of a run's log without what differs from run to run."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def tiny_recipe(**changes):
    """Returns a recipe of two epochs of the digits on a net of one block; `a__b` sets field a.b."""
    config = config_lib.defaults()
    config.data.name = "digits"
    config.batch_size, config.num_epochs = 64, 2
    config.model.name, config.model.stem = "resnet18", "small"
    config.model.width, config.model.stage_sizes = 4, (1,)
    for name, value in changes.items():
        config_lib.set_field(config, name.replace("__", "."), value)
    config_lib.validate(config)
    return config


def without_the_end(workdir, into):
    """Copies a run as it was at its last checkpoint but one."""
    shutil.copytree(workdir, into)
    shutil.rmtree(max((into / "checkpoints").iterdir(), key=lambda path: int(path.name)))
    return into
