"""The measurement of loop and start, on the smallest networks; no speed is asserted."""

import copy

import jax
import jax.numpy as jnp
import pytest

from benchmarks import loop, loop_start, loop_steps

TINY = {"model__width": 4, "model__stage_sizes": (1,)}
TINY_FLAGS = ("--config.model.width=4", "--config.model.stage_sizes=1,", "--config.num_epochs=3")


@pytest.fixture(scope="module")
def measured():
    train, split = (
        loop_steps.settings(**TINY),
        loop_steps.settings(data__eval_split="train", **TINY),
    )
    bare = loop_steps.time_loop(train, rounds=2)
    hollow = loop_steps.time_loop(loop_steps.settings(**TINY), rounds=1, hollow=True)
    scored = loop_steps.time_evaluation(split, rounds=2)
    return {
        "loop": {loop.LARGE: bare, "nothing": hollow},
        "evaluation": {loop.LARGE: scored},
        "save": loop_steps.time_saves(loop_steps.settings(**TINY), rounds=2),
        "starts": loop.measure_starts([loop_start.QUICKSTART, *TINY_FLAGS], 1, steps=3),
        "imports": loop.measure_imports(1),
    }


def test_the_loop_is_timed_by_whole_epochs_and_compiles_nothing(measured):
    bare, hollow = measured["loop"].values()
    assert (bare["rounds"], bare["steps_a_stretch"], bare["compiled_in_loop"]) == (
        2,
        1442 // 64,
        [],
    )
    assert bare["ratio_range"][0] <= bare["ratio"] <= bare["ratio_range"][1]
    assert hollow["bare_ms"] < hollow["loop_ms"]


def test_the_evaluation_scores_a_last_part_of_a_batch_without_compiling(measured):
    scored = measured["evaluation"][loop.LARGE]
    assert (scored["examples"], scored["last_batch"], scored["batch_size"]) == (1442, 1442 % 64, 64)
    assert scored["compiled"] == []


def test_a_program_compiled_meanwhile_is_noticed():
    with loop_steps.compilations() as names:
        jax.jit(lambda x: x * 3.25)(jnp.ones(7))
    assert names
    before = len(names)
    jax.jit(lambda x: x * 4.25)(jnp.ones(7))
    assert len(names) == before


def test_a_save_is_timed_until_it_is_committed(measured):
    save = measured["save"]
    assert save["rounds"] == 2
    assert save["state_megabytes"] > 0
    assert save["held_seconds"] > 0
    assert save["committed_seconds"] > 0


def test_only_a_first_start_misses_the_cache(measured):
    starts = measured["starts"]
    assert starts["first"][0]["misses"] == starts["first"][0]["programs"] > 0
    for start in (*starts["resumed"], *starts["second"]):
        assert (start["misses"], start["programs"]) == (0, starts["first"][0]["programs"])


def test_the_parts_of_a_start_explain_most_of_it(measured):
    for kind in measured["starts"].values():
        for start in kind:
            assert min(start["parts"].values()) > -1e-3
            assert start["parts"]["the rest"] < 0.4 * start["first_step_seconds"]


def test_a_value_that_is_missed_or_not_resolved_is_said(measured):
    worse = copy.deepcopy(measured)
    worse["loop"][loop.LARGE] |= {"ratio": 1.02, "ratio_of_fastest": 1.0}
    worse["evaluation"][loop.LARGE] |= {"ratio": 1.0, "ratio_of_fastest": 1.1}
    worse["save"] |= {"extra_seconds": 0.5, "extra_of_fastest": 0.7}
    worse["starts"]["second"][0]["misses"] = 3
    verdicts = {what: met for what, _, _, met in loop.judge(worse)}
    assert verdicts[f"loop / bare step, {loop.LARGE}"]
    assert verdicts[f"evaluation / bare inference, {loop.LARGE}"] is None
    assert verdicts["a save's cost, of a 60 s epoch"] is None
    assert verdicts["cache misses, second start"] is False
    text = loop.page(loop.machine(), worse, "the command")
    assert "| cache misses, second start | 0 | 3 | **missed** |" in text
