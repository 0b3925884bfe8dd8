"""Runs killed at random moments, again and again, end like an undisturbed one, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from running import QUICK, ROOT, launch, log

import resnet_jax
from benchmarks.faults import torment
from resnet_jax.distributed.lock import FILE

RECIPE = (
    QUICK,
    "--config.model.width=4",
    "--config.model.stage_sizes=1,1",
    "--config.num_epochs=8",
    "--config.log_every_steps=9",
    "--config.checkpoint.every_epochs=0.3",
    "--config.data.flip=True",
)
KILLS = 50


def weights(workdir):
    return resnet_jax.restore(workdir, "last")[1]["params"]["fc"]["kernel"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    launch(*RECIPE, f"--workdir={workdir}")
    return workdir


def start(workdir):
    command = [sys.executable, "launch.py", *RECIPE, f"--workdir={workdir}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # On one device, as the undisturbed run: more of them add up in another order.
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""}, **pipes)


def kill(process, number=signal.SIGKILL):
    if process.poll() is None:
        process.send_signal(number)


def assert_like(workdir, straight):
    assert (weights(workdir) == weights(straight)).all()
    assert log(workdir) == log(straight)
    assert not (workdir / FILE).exists()
    assert not list(workdir.glob(".*"))


def test_kills_at_random_moments_lose_nothing(tmp_path):
    counts, _, faults = torment(KILLS, 0, tmp_path)
    assert counts.total() == KILLS
    assert not faults


def test_kills_of_two_starts_in_one_workdir_lose_nothing(straight, tmp_path):
    """The first is killed while the second waits for it, or the second is, or both are."""
    moments, killed, number = random.Random(1), 0, 0
    waited = refused = 0
    while killed < KILLS:
        number += 1
        workdir = tmp_path / str(number)
        for _ in range(4):
            first = start(workdir)
            time.sleep(moments.uniform(0, 4))
            second = start(workdir)
            time.sleep(moments.uniform(0.3, 4))
            for process, chance in ((first, 0.6), (second, 0.4)):
                if moments.random() < chance:
                    kill(process, signal.SIGTERM)
                    time.sleep(moments.uniform(0, 1))
                if moments.random() < chance:
                    kill(process)
                    killed += 1
                    time.sleep(moments.uniform(0, 1))
            for process in (first, second):
                output, _ = process.communicate(timeout=120)
                assert "Traceback" not in output
                assert process.returncode in (0, 1, 143, -signal.SIGKILL, -signal.SIGTERM), output
                if process.returncode == 1:
                    assert "in use by process" in output
                    refused += 1
                waited += "this one waits for it" in output
        launch(*RECIPE, f"--workdir={workdir}")
        assert_like(workdir, straight)
    assert refused
    assert waited
