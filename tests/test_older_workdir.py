"""A run that an older version of this package began goes on, is scored and is restored by this one.

`tests/workdir` was written by commit 1021a4c, whose files must stay readable. It is a run of 44
steps on the digits, with every kind of random number in it (order, crops, flips, erasing, mixup,
dropout, dropped branches), stopped by SIGTERM at step 36. `expected.json` has what the same
commit's undisturbed run ended with.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from running import launch

import resnet_jax
from resnet_jax import config as config_lib

KEPT = Path(__file__).parent / "workdir"


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(KEPT, tmp_path / "run")


@pytest.fixture
def expected():
    return json.loads((KEPT / "expected.json").read_text())


def overrides(workdir):
    """Returns the flags that make the quickstart the recipe of the run."""
    kept = config_lib.from_json((workdir / "config.json").read_text())
    names = {name for name, _ in config_lib.flatten(kept)}
    assert names <= {name for name, _ in config_lib.flatten(config_lib.defaults())}, (
        "a field was renamed or removed"
    )
    command = json.loads((workdir / "environment.json").read_text())[0]["command"]
    return [word for word in command if word.startswith("--config")]


def test_it_goes_on_with_the_same_random_numbers(workdir, expected):
    said = launch(*overrides(workdir), f"--workdir={workdir}").stdout
    assert "going on from step 36" in said
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == len(expected["log"])
    for line, other in zip(lines, expected["log"], strict=True):
        assert line["split"] == other.pop("split")
        assert {name: line[name] for name in other} == pytest.approx(other, rel=1e-3, abs=0.006)
    _, variables, _ = resnet_jax.restore(workdir, "last")
    norms = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(np.linalg.norm(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    assert norms == pytest.approx(expected["norms"], rel=1e-3, abs=1e-4)


def test_it_is_scored_as_it_was_then(workdir, expected):
    score = json.loads(launch("--mode=evaluate", f"--workdir={workdir}").stdout.splitlines()[-1])
    best = expected["best"]
    assert (score["step"], score["examples"]) == (best["step"], 355)
    assert score["loss"] == pytest.approx(best["scores"]["loss"], rel=1e-5)
    assert score["top1"] == pytest.approx(best["scores"]["top1"], abs=0.003)


def test_it_is_restored_with_the_same_logits(workdir, expected):
    model, variables, description = resnet_jax.restore(workdir)
    images, mean, std = (
        expected["best"]["images"],
        description.config.data.mean,
        description.config.data.std,
    )
    images = (np.array(images, np.float32) / 255 - np.array(mean, np.float32)) / np.array(
        std, np.float32
    )
    logits = model.apply(variables, images, train=False)
    np.testing.assert_allclose(logits, expected["best"]["logits"], rtol=1e-4, atol=1e-5)
    assert description.classes == tuple("0123456789")
    assert description.scores == expected["best"]["scores"]
