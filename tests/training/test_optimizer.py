"""The optimizers against slow transcriptions of their papers, and decay only where it belongs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import config as config_lib
from resnet_jax.training.optimizer import is_weight, make_optimizer

RATE = 0.3


def fields(**changes):
    config = config_lib.defaults().optimizer
    config.update(changes)
    return config


def parameters():
    draws = np.random.default_rng(0)
    return {
        "conv1": {"kernel": draws.normal(size=(3, 3, 2, 4))},
        "bn1": {"scale": draws.normal(size=4), "bias": draws.normal(size=4)},
        "fc": {"kernel": draws.normal(size=(4, 3)), "bias": draws.normal(size=3)},
    }


def gradients(step):
    draws = np.random.default_rng(100 + step)
    return jax.tree.map(lambda p: draws.normal(size=p.shape), parameters())


def run_ours(config, steps=3):
    with jax.enable_x64(True):
        update = make_optimizer(config, lambda step: jnp.asarray(RATE, float))
        params = jax.tree.map(jnp.asarray, parameters())
        state = update.init(params)
        for step in range(steps):
            updates, state = update.update(
                jax.tree.map(jnp.asarray, gradients(step)), state, params
            )
            params = jax.tree.map(jnp.add, params, updates)
        return jax.tree.map(np.asarray, params)


def run_slowly(rule, steps=3):
    """Runs `rule`(parameter, gradient, memory, step, is_kernel) -> new parameter, one array at a
    time.
    """

    def one(path, parameter):
        memory, kernel = {}, path[-1].key == "kernel"
        for step in range(steps):
            gradient = gradients(step)
            for key in path:
                gradient = gradient[key.key]
            parameter = rule(parameter, gradient, memory, step, kernel)
        return parameter

    return jax.tree_util.tree_map_with_path(one, parameters())


def sgd(parameter, gradient, memory, step, kernel):
    gradient = gradient + 0.01 * parameter * kernel
    memory["v"] = 0.9 * memory.get("v", 0) + gradient
    return parameter - RATE * memory["v"]


def nesterov(parameter, gradient, memory, step, kernel):
    gradient = gradient + 0.01 * parameter * kernel
    memory["v"] = 0.9 * memory.get("v", 0) + gradient
    return parameter - RATE * (gradient + 0.9 * memory["v"])


def decoupled(parameter, gradient, memory, step, kernel):
    memory["v"] = 0.9 * memory.get("v", 0) + gradient
    return parameter - RATE * (memory["v"] + 0.01 * parameter * kernel)


def lars(parameter, gradient, memory, step, kernel):
    """You et al. 2017, algorithm 1: the local rate is part of the momentum, and so is the global
    one.
    """
    gradient = gradient + 0.01 * parameter * kernel
    local = 0.001 * np.linalg.norm(parameter) / np.linalg.norm(gradient) if kernel else 1.0
    memory["v"] = 0.9 * memory.get("v", 0) + RATE * local * gradient
    return parameter - memory["v"]


def moments(gradient, memory, step):
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * gradient
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * gradient**2
    mean, square = memory["m"] / (1 - 0.9 ** (step + 1)), memory["v"] / (1 - 0.999 ** (step + 1))
    return mean / (np.sqrt(square) + 1e-8)


def lamb(parameter, gradient, memory, step, kernel):
    """You et al. 2020, algorithm 2, with the identity for phi."""
    direction = moments(gradient, memory, step) + 0.01 * parameter * kernel
    ratio = np.linalg.norm(parameter) / np.linalg.norm(direction) if kernel else 1.0
    return parameter - RATE * ratio * direction


def adam(parameter, gradient, memory, step, kernel):
    return parameter - RATE * moments(gradient + 0.01 * parameter * kernel, memory, step)


def adamw(parameter, gradient, memory, step, kernel):
    return parameter - RATE * (moments(gradient, memory, step) + 0.01 * parameter * kernel)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"name": "sgd"}, sgd),
        ({"name": "sgd", "nesterov": True}, nesterov),
        ({"name": "sgd", "decoupled": True}, decoupled),
        ({"name": "adam"}, adam),
        ({"name": "adamw"}, adamw),
        ({"name": "lars"}, lars),
        ({"name": "lamb"}, lamb),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_three_steps_are_those_of_the_paper(changes, rule):
    ours = run_ours(fields(weight_decay=0.01, **changes))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), ours, run_slowly(rule))


def test_norms_and_biases_are_decayed_only_on_demand():
    def after_no_gradient(**changes):
        update = make_optimizer(fields(weight_decay=0.5, momentum=0.0, **changes), lambda step: 1.0)
        params = jax.tree.map(jnp.ones_like, parameters())
        updates, _ = update.update(
            jax.tree.map(jnp.zeros_like, params), update.init(params), params
        )
        return jax.tree.map(lambda update: float(-update.mean()), updates)

    spared = {
        "conv1": {"kernel": 0.5},
        "bn1": {"scale": 0.0, "bias": 0.0},
        "fc": {"kernel": 0.5, "bias": 0.0},
    }
    assert after_no_gradient() == spared
    assert set(jax.tree.leaves(after_no_gradient(decay_norm_and_bias=True))) == {0.5}


def test_weights_are_the_kernels():
    assert is_weight(parameters()) == {
        "conv1": {"kernel": True},
        "bn1": {"scale": False, "bias": False},
        "fc": {"kernel": True, "bias": False},
    }


@pytest.mark.parametrize("clip_norm", [0.5, 50.0])
def test_gradients_of_a_larger_norm_than_the_largest_are_scaled_to_it_before_decay(clip_norm):
    def clipped(parameter, gradient, memory, step, kernel):
        everything = [np.ravel(leaf) for leaf in jax.tree.leaves(gradients(step))]
        norm = np.linalg.norm(np.concatenate(everything))
        return sgd(parameter, gradient * min(1, clip_norm / norm), memory, step, kernel)

    ours = run_ours(fields(name="sgd", weight_decay=0.01, clip_norm=clip_norm))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, run_slowly(clipped)
    )
