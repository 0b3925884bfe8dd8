"""Every recipe takes a real step; the longest ones train with all that they switch on."""

import runpy

import numpy as np
import pytest
from recipe_steps import fabricated, narrow, take_a_step
from running import ROOT

from resnet_jax import config as config_lib
from resnet_jax import recipes
from resnet_jax.commands.train import train
from resnet_jax.training.reporting import logbook

ALL = sorted(ROOT.glob("configs/**/*.py"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_recipe_takes_a_step_and_is_evaluated(path, tmp_path):
    take_a_step(path, tmp_path)


@pytest.mark.parametrize("name", ["torchvision_v2", "rsb_a1", "rsb_a3"])
def test_a_recipe_trains_for_twenty_steps_with_every_method_on(name, tmp_path):
    config = recipes.load(ROOT / "configs" / "imagenet" / f"resnet50_{name}.py")
    fabricated(config, tmp_path / "data", train=192)
    config.batch_size, config.num_epochs, config.schedule.warmup_epochs = 48, 5, 1
    config.data.image_size, config.data.eval_size, config.log_every_steps = 48, 64, 1
    if config.ema.decay:
        config.ema.every, config.ema.start_epochs = 2, 1
    narrow(config, 4)
    config_lib.validate(config)
    train(config, str(tmp_path / "run"))
    steps = [line for line in logbook.read(tmp_path / "run") if line["split"] == "train"]
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert all(np.isfinite(line["loss"]) for line in steps)


def test_every_recipe_of_imagenet_says_the_hours_of_the_model():
    page = runpy.run_path(str(ROOT / "docs" / "write_recipes.py"))
    for path in (ROOT / "configs" / "imagenet").glob("*resne*.py"):
        assert page["hours_line"](recipes.load(path)) in recipes.told(path)["Cost"]
