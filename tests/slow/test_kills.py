"""Runs killed at random moments, again and again, end like an undisturbed one, bit for bit."""

import random
import subprocess
import sys

import pytest
from running import QUICK, ROOT, launch, log

import resnet_jax

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


def test_kills_at_random_moments_lose_nothing(straight, tmp_path):
    moments, killed, number = random.Random(0), 0, 0
    while killed < KILLS:
        number += 1
        workdir = tmp_path / str(number)
        while True:
            command = [sys.executable, "launch.py", *RECIPE, f"--workdir={workdir}"]
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            try:
                # A start takes some seconds, and its steps about one.
                output, _ = process.communicate(timeout=moments.uniform(2, 9))
                assert process.returncode == 0, output
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed += 1
        assert (weights(workdir) == weights(straight)).all()
        assert log(workdir) == log(straight)
