"""Frozen parameters, rates of their own, and the optimizers that keep to them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import UserError
from resnet_jax import config as config_lib
from resnet_jax.models import ResNet
from resnet_jax.models.depths import module_depths
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.param_groups import ParamGroups, matches

MODEL = ResNet(stage_sizes=(1, 1), block="basic", width=4, num_classes=3)


@functools.cache
def params():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]


def groups(**fields):
    config = config_lib.defaults().optimizer
    config.update(fields)
    return ParamGroups.create(config, params(), module_depths(params())), config


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("fc", ["fc/kernel", "fc/bias"], ["layer1_0/fc/kernel", "fcx/kernel"]),
        ("layer1_*", ["layer1_0/conv1/kernel"], ["layer2_0/conv1/kernel", "conv1/kernel"]),
        ("*/bias", ["fc/bias", "layer1_0/bn1/bias"], ["fc/kernel"]),
        ("all but fc", ["conv1/kernel", "layer1_0/bn1/scale"], ["fc/kernel"]),
    ],
)
def test_a_pattern_matches_a_path_or_its_beginning(pattern, matched, others):
    assert all(matches(pattern, path) for path in matched)
    assert not any(matches(pattern, path) for path in others)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": ("fcc",)}, "optimizer.freeze: 'fcc' matches no parameter; .* begin with bn1"),
        ({"rates": ("layer9*=0.1",)}, "optimizer.rates: 'layer9\\*' matches no parameter"),
        ({"rates": ("fc",)}, "must be PATTERN=FACTOR"),
        ({"rates": ("fc=-1",)}, "must be PATTERN=FACTOR"),
        ({"freeze": ("*",)}, "leaves nothing to train"),
    ],
)
def test_a_pattern_that_says_nothing_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        groups(**fields)


def test_the_rate_of_a_parameter_is_its_factor_times_the_decay_of_its_depth():
    found, _ = groups(rates=("fc=10", "*=2"), layer_decay=0.5)
    assert found.rate("fc/bias") == 10
    assert found.rate("layer2_0/conv1/kernel") == 2 * 0.5
    assert found.rate("layer1_0/conv1/kernel") == 2 * 0.25
    assert found.rate("conv1/kernel") == 2 * 0.125


def test_the_table_says_what_trains_at_which_rate():
    found, _ = groups(freeze=("all but fc",), freeze_epochs=3.0, rates=("all but fc=0.1",))
    fc = 8 * 3 + 3
    others = sum(leaf.size for leaf in jax.tree.leaves(params())) - fc
    assert found.table(params()) == {
        "frozen 3 epochs, then rate × 0.1": f"bn1, conv1, layer1_0, layer2_0, {others:,} parameters",
        "rate × 1": f"fc, {fc} parameters",
    }


def gradients(step):
    draws = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(draws.standard_normal(p.shape), p.dtype), params())


def follow(optimizers, start=None):
    """Returns parameters and state after a step with each optimizer."""
    state = optimizers[0].init(params())
    values = params()
    for step, optimizer in enumerate(optimizers):
        updates, state = jax.jit(optimizer.update)(gradients(step), state, values)
        values = jax.tree.map(jnp.add, values, updates)
    return values, state


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_a_frozen_group_does_not_move_and_then_trains_at_the_schedule_s_rate(name):
    found, config = groups(name=name, freeze=("all but fc",), freeze_epochs=1.0, weight_decay=0.1)

    def rate(step):
        return 0.1 / (1 + step)

    still, moving = (
        make_optimizer(config, rate, found, is_frozen=is_frozen) for is_frozen in (True, False)
    )
    before, state = follow([still, still])
    assert jax.tree.structure(state) == jax.tree.structure(moving.init(params()))
    body = {name: leaf for name, leaf in before.items() if name != "fc"}
    jax.tree.map(np.testing.assert_array_equal, body, {k: params()[k] for k in body})
    after, _ = follow([still, still, moving])
    # As if the body had a new optimizer of its own, begun at the third step of the schedule.
    alone = make_optimizer(config, lambda step: rate(step + 2))
    updates, _ = alone.update(gradients(2), alone.init(params()), params())
    expected = jax.tree.map(jnp.add, params(), updates)
    for part in body:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            after[part],
            expected[part],
        )


def test_what_never_trains_has_no_optimizer_state():
    found, config = groups(freeze=("all but fc",))
    state = make_optimizer(config, lambda step: 0.1, found).init(params())
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(state))
        < params()["layer2_0"]["conv1"]["kernel"].size
    )


def test_layer_decay_slows_each_block_by_its_distance_from_the_classifier():
    found, config = groups(layer_decay=0.5, weight_decay=0.1, momentum=0.0)
    optimizer = make_optimizer(config, lambda step: 0.3, found)
    updates, _ = optimizer.update(gradients(0), optimizer.init(params()), params())
    # The stem's convolution, its norm, the two blocks and the classifier, as they stand.
    distances = {"conv1": 3, "bn1": 3, "layer1_0": 2, "layer2_0": 1, "fc": 0}

    def expected(path, update, gradient, parameter):
        decayed = gradient + (0.1 * parameter if path[-1].key == "kernel" else 0)
        rate = 0.3 * 0.5 ** distances[path[0].key]
        np.testing.assert_allclose(update, -rate * decayed, rtol=1e-5)

    jax.tree_util.tree_map_with_path(expected, updates, gradients(0), params())


@pytest.mark.parametrize("is_frozen", [False, True])
def test_the_norm_that_gradients_are_clipped_to_is_that_of_all_groups_together(is_frozen):
    fields = {"freeze": ("all but fc",), "freeze_epochs": 1.0, "clip_norm": 0.2}
    found, config = groups(**fields, weight_decay=0.0, momentum=0.0)
    optimizer = make_optimizer(config, lambda step: 1.0, found, is_frozen=is_frozen)
    given = gradients(0)
    if is_frozen:  # A step that leaves them as they are computes none for them.
        given = {name: jax.tree.map(lambda g: g * (name == "fc"), given[name]) for name in given}
    updates, _ = optimizer.update(given, optimizer.init(params()), params())
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(given)))
    np.testing.assert_allclose(
        updates["fc"]["kernel"], -0.2 / norm * given["fc"]["kernel"], rtol=1e-5
    )


def test_rates_scale_the_whole_update():
    found, config = groups(rates=("conv1=0.25",), weight_decay=0.1)
    plain = make_optimizer(config, lambda step: 0.1)
    scaled = make_optimizer(config, lambda step: 0.1, found)
    (one, _), (other, _) = (
        optimizer.update(gradients(0), optimizer.init(params()), params())
        for optimizer in (plain, scaled)
    )
    np.testing.assert_allclose(other["conv1"]["kernel"], one["conv1"]["kernel"] / 4, rtol=1e-6)
    np.testing.assert_array_equal(other["fc"]["kernel"], one["fc"]["kernel"])
