import itertools
import json
import types

import pytest

from resnet_jax import config as config_lib
from resnet_jax.commands.benchmark import Timing, benchmark, time_steps


def test_a_step_is_timed_by_stretches(monkeypatch):
    now, clock = [0.0], types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("resnet_jax.commands.benchmark.time", clock)
    seconds = itertools.chain([9.0], itertools.repeat(0.01))  # the first has the compiling in it

    def step():
        now[0] += next(seconds)
        return ()

    timing = time_steps(step, seconds=0.2, stretches=5)
    assert timing.median == pytest.approx(0.01)
    assert now[0] == pytest.approx(9.01 + 0.2, abs=0.06)  # whole steps in each stretch


def test_all_processes_take_the_steps_that_the_lead_says(monkeypatch):
    monkeypatch.setattr("resnet_jax.commands.benchmark.lead_says", lambda value: 3)
    calls = []
    time_steps(lambda: calls.append(None), seconds=60.0, stretches=5)
    assert len(calls) == 2 + 3 * 5


def test_the_spread_ignores_a_single_outlier():
    timing = Timing.of([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 50.0])
    assert (timing.median, timing.spread) == (1.0, 0.0)


def test_the_last_line_has_every_figure_and_they_agree(capsys):
    config = config_lib.defaults()
    config.batch_size, config.data.name = 64, "digits"
    config.model.stage_sizes, config.model.width, config.model.stem = (1,), 8, "small"
    benchmark(config, seconds=0.5)
    output = capsys.readouterr().out
    record = json.loads(output.splitlines()[-1])
    assert record["images_per_sec"]["training"] == pytest.approx(
        64e3 / record["step_ms"]["median"], rel=1e-2
    )
    assert record["images_per_sec"].keys() == {"training", "loop", "inference"}
    assert record["share_of_bound"].keys() == {"compute", "memory_unfused", "memory_fused"}
    a_device = record["images_per_sec"]["training"] / 8
    bounds, shares = record["bound_images_per_sec"], record["share_of_bound"]
    assert shares["compute"] == pytest.approx(a_device / bounds["compute"], rel=1e-2, abs=1e-4)
    assert 0 <= record["data_wait"] <= 1
    assert "images/s with its data, data wait" in output
