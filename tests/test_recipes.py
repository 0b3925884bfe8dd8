"""No recipe rots: each is read, checked and traced, one of each family takes a real step."""

import runpy

import jax
import pytest
from recipe_steps import take_a_step, trace
from running import ROOT, slow_where

from resnet_jax import config as config_lib
from resnet_jax import recipes

ALL = sorted(ROOT.glob("configs/**/*.py"))
# One for each kind of data, optimizer, loss, augmentation and course of a run; test_tutorials.py
# runs those of folders.
FAMILIES = (
    "fashion_mnist_best",
    "tutorials/cifar10_without_norm",
    "tutorials/resnet50_imagenette",
    "imagenet/resnet50_rsb_a1",
    "imagenet/resnet50_16_epochs",
)
MORE = ("imagenet/resnet50_mlperf", "imagenet/resnetrs50", "imagenet/resnet50_torchvision_v2")


def name_of(path):
    return path.relative_to(ROOT / "configs").with_suffix("").as_posix()


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_recipe_says_what_it_is_and_traces(path, tmp_path):
    text = path.read_text()
    assert f"python launch.py --config=configs/{name_of(path)}.py" in text
    assert set(recipes.told(path)) == {"Expected", "Cost"}
    config = recipes.load(path)
    config.data.dir = str(tmp_path)  # where recipes for files on disk ask for a directory
    config_lib.validate(config)
    assert not config_lib.warnings(config)
    trace(config)


@pytest.mark.parametrize("name", slow_where(MORE.__contains__, [*FAMILIES, *MORE]))
def test_a_recipe_of_each_family_takes_a_step_and_is_evaluated(name, tmp_path):
    take_a_step(ROOT / "configs" / f"{name}.py", tmp_path, stages=2)


def test_the_page_on_recipes_is_current_and_its_hours_are_the_model_s():
    page = runpy.run_path(str(ROOT / "docs" / "write_recipes.py"))
    assert (ROOT / "docs" / "recipes.md").read_text() == page["write_page"]() + "\n"
    for name in ("imagenet/resnet50_16_epochs", "imagenet/resnet18"):
        path = ROOT / "configs" / f"{name}.py"
        assert page["hours_line"](recipes.load(path)) in recipes.told(path)["Cost"]


@pytest.mark.slow
def test_the_hybrid_example_learns_its_batch():
    hybrid = runpy.run_path(str(ROOT / "examples" / "hybrid.py"))
    images = jax.random.normal(jax.random.key(0), (8, 32, 32, 3))
    labels = jax.numpy.arange(8)
    losses = hybrid["train"](hybrid["Hybrid"](width=8, head=32), images, labels, steps=12)
    assert losses[-1] < 0.5 * losses[0]
