"""A run with a moving average: scored, kept, resumed and restored; and one that ends at a score."""

import jax
import numpy as np
import pytest
from running import log, tiny_recipe, without_the_end

import resnet_jax
from resnet_jax import config as config_lib
from resnet_jax.commands.evaluate import evaluate
from resnet_jax.commands.train import Accepted, train

AVERAGED = {"ema__decay": 0.9, "ema__every": 3, "optimizer__clip_norm": 0.5}


def variables(workdir):
    return jax.tree.map(np.asarray, resnet_jax.restore(workdir, "last")[1])


def scores(workdir):
    return [line for line in log(workdir) if line["split"] == "test"]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("averaged")
    train(tiny_recipe(**AVERAGED), str(workdir))
    return workdir


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("plain")
    train(tiny_recipe(optimizer__clip_norm=0.5), str(workdir))
    return workdir


def test_the_average_is_what_is_scored_first_kept_and_restored(averaged, plain, capsys):
    with_it, without = scores(averaged)[-1], scores(plain)[-1]
    # The parameters themselves go the way that they go without an average.
    assert {name: with_it[f"trained_{name}"] for name in ("loss", "top1")} == {
        name: without[name] for name in ("loss", "top1")
    }
    assert with_it["loss"] != with_it["trained_loss"]
    best = resnet_jax.restore(averaged)[2]
    assert best.scores["top1"] == max(line["top1"] for line in scores(averaged))
    evaluate(str(averaged), which="last")
    assert f'"loss": {with_it["loss"]}' in capsys.readouterr().out


def test_a_run_goes_on_with_its_average_bit_for_bit_and_may_be_scored_by_it_alone(
    averaged, tmp_path, capsys
):
    broken = without_the_end(averaged, tmp_path / "run")
    train(tiny_recipe(**AVERAGED, ema__score_both=False), str(broken))
    assert "every 3 steps; scored alone" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, variables(broken), variables(averaged))
    alone, both = scores(broken)[-1], scores(averaged)[-1]
    assert alone == {name: both[name] for name in alone}
    assert "trained_top1" not in alone


def test_an_average_may_begin_at_a_checkpoint_and_may_be_left_there(
    plain, averaged, tmp_path, capsys
):
    begun = without_the_end(plain, tmp_path / "begun")
    train(tiny_recipe(**AVERAGED), str(begun), accepted=Accepted(("ema.decay", "ema.every")))
    assert "has no moving average: it starts from the parameters there" in capsys.readouterr().out
    assert scores(begun)[-1]["trained_loss"] == scores(plain)[-1]["loss"]
    assert scores(begun)[-1]["loss"] != scores(averaged)[-1]["loss"]
    left = without_the_end(averaged, tmp_path / "left")
    changed = tiny_recipe(optimizer__clip_norm=0.5)
    train(changed, str(left), accepted=Accepted(("ema.decay", "ema.every")))
    jax.tree.map(np.testing.assert_array_equal, variables(left), variables(plain))


def test_a_run_ends_at_the_evaluation_that_reaches_stop_at_top1(plain, tmp_path, capsys):
    recipe = tiny_recipe(optimizer__clip_norm=0.5, stop_at_top1=scores(plain)[0]["top1"])
    for said in ("reaches stop_at_top1", "is finished after 22 steps"):
        train(recipe, str(tmp_path))
        assert said in capsys.readouterr().out
    assert [line["step"] for line in scores(tmp_path)] == [22]
    assert resnet_jax.restore(tmp_path, "last")[2].step == 22


@pytest.mark.parametrize(
    ("field", "value"), [("ema.decay", 1.0), ("ema.every", 0), ("stop_at_top1", 75.9)]
)
def test_values_that_mean_nothing_are_refused(field, value):
    with pytest.raises(resnet_jax.UserError, match=f"config.{field} = {value}: must be"):
        tiny_recipe(**{field.replace(".", "__"): value})


def test_what_is_set_beside_no_average_is_said():
    (line,) = config_lib.warnings(tiny_recipe(ema__every=3))
    assert line == "config.ema.every = 3 has no effect: it needs config.ema.decay"
