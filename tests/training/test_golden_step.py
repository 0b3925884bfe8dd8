"""Three training steps of a small recipe give the numbers that they gave before."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax import config as config_lib
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.experiment import Experiment

GOLDEN = Path(__file__).parent / "golden_step.json"
ADVICE = (
    "three steps of training no longer give the numbers of golden_step.json. Where the change is "
    "meant (other random numbers, another order of operations), say so in the commit and write "
    "them again: python tests/training/test_golden_step.py"
)


def take_three_steps(precision: str) -> dict[str, float]:
    """Returns the loss of each step, and the norm of each array after the last."""
    config = config_lib.defaults()
    config.seed, config.batch_size, config.num_epochs = 5, 32, 1
    config.precision = precision
    config.data.name = "digits"
    config.data.flip, config.data.pad_and_crop, config.data.random_erasing = True, 1, 0.5
    config.data.mixup, config.data.cutmix = 0.2, 1.0
    config.model.name, config.model.stem = "resnet18", "small"
    config.model.width, config.model.stage_sizes = 4, (1, 1)
    config.model.dropout, config.model.stochastic_depth = 0.1, 0.1
    config.loss.label_smoothing = 0.1
    experiment = Experiment.for_training(config)
    state, found = experiment.create_state(), {}
    for number in range(3):
        batch = shard_batch(experiment.mesh, experiment.train_loader[number])
        state, metrics = experiment.train_step(state, batch)
        found[f"loss of step {number + 1}"] = float(metrics.sums["loss"])
    experiment.train_loader.close()
    leaves = jax.tree_util.tree_leaves_with_path((state.params, state.batch_stats, state.opt_state))
    for path, leaf in leaves:
        name = f"norm of {jax.tree_util.keystr(path, simple=True, separator='/')}"
        found[name] = float(np.linalg.norm(np.asarray(leaf, np.float64)))
    return found


@pytest.fixture
def optimized():
    """The numbers are those of what users run."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, False)
    yield
    jax.config.update(name, before)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float64", 1e-9)])
def test_three_steps_give_the_numbers_that_they_gave(precision, tolerance):
    golden = json.loads(GOLDEN.read_text())[precision]
    with jax.enable_x64(precision == "float64"):
        found = take_three_steps(precision)
    assert found.keys() == golden.keys(), ADVICE
    # A bias that BatchNorm takes out again has a gradient of rounding errors alone.
    close = pytest.approx(golden, rel=tolerance, abs=tolerance)
    assert found == close, ADVICE


if __name__ == "__main__":
    numbers = {}
    for name in ("float32", "float64"):
        with jax.enable_x64(name == "float64"):
            numbers[name] = take_three_steps(name)
    GOLDEN.write_text(json.dumps(numbers, indent=1) + "\n")
