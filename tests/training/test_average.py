"""The moving average, against its recursion written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import config as config_lib
from resnet_jax.training.average import Average, make_move

STEPS, STEPS_PER_EPOCH = 40, 10


def variables(step):
    draws = np.random.default_rng(step)
    return {"fc": {"kernel": draws.normal(size=(3, 2))}}, {"bn1": {"mean": draws.normal(size=4)}}


def written_out(decay, every, warmup, start_epochs):
    """Returns the average after `STEPS` steps; `variables(0)` is what training starts from."""
    average, moves = jax.tree.map(np.array, variables(0)), 0
    for step in range(1, STEPS + 1):
        now = variables(step)
        if step <= start_epochs * STEPS_PER_EPOCH:
            average = now
        elif step % every == 0:
            kept = min(decay, (1 + moves) / (10 + moves)) if warmup else decay
            average = jax.tree.map(
                lambda old, new, kept=kept: kept * old + (1 - kept) * new, average, now
            )
            moves += 1
    return average


@pytest.mark.parametrize(
    "settings",
    [
        {"decay": 0.9, "every": 1, "warmup": False, "start_epochs": 0.0},
        {"decay": 0.9, "every": 1, "warmup": True, "start_epochs": 0.0},
        {"decay": 0.6, "every": 3, "warmup": True, "start_epochs": 0.5},
        {"decay": 0.99, "every": 4, "warmup": False, "start_epochs": 1.2},
    ],
)
def test_the_average_of_parameters_and_statistics_follows_its_recursion(settings):
    ema = config_lib.defaults().ema
    ema.update(settings)
    with jax.enable_x64(True):
        move = jax.jit(make_move(ema, STEPS_PER_EPOCH))
        average = Average.create(*jax.tree.map(jnp.asarray, variables(0)))
        for step in range(1, STEPS + 1):
            average = move(average, *jax.tree.map(jnp.asarray, variables(step)), jnp.int32(step))
    jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12),
        (average.params, average.batch_stats),
        written_out(**settings),
    )


def test_without_a_decay_there_is_no_average():
    assert make_move(config_lib.defaults().ema, STEPS_PER_EPOCH) is None
