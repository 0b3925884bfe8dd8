"""A run that is broken off and started again ends like an undisturbed one, bit for bit, through
`launch.py`.
"""

import importlib
import json
import shutil

import jax
import numpy as np
import pytest
from running import QUICK, devices, launch, log, run, tiny_recipe

import resnet_jax
from resnet_jax import config as config_lib
from resnet_jax.commands import train as verb

RECIPE = (
    QUICK,
    "--config.model.width=4",
    "--config.model.stage_sizes=1,1",
    "--config.schedule.warmup_epochs=0.5",
    "--config.num_epochs=3",
    "--config.log_every_steps=9",
    "--config.checkpoint.every_epochs=0.5",
    "--config.data.flip=True",
)
STEPS = 66


def train(workdir):
    return launch(*RECIPE, f"--workdir={workdir}")


def kill_at(point, signals, workdir):
    return run(["tests/kill_at.py", point, signals], *RECIPE, f"--workdir={workdir}")


def final(workdir):
    _, variables, description = resnet_jax.restore(workdir, "last")
    return description.step, jax.tree.map(np.asarray, variables)


def assert_equals(workdir, straight):
    step, variables = final(workdir)
    expected_step, expected = final(straight)
    assert step == expected_step
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    assert log(workdir) == log(straight)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    done = train(workdir)
    assert "goodput: " in done.stdout
    assert "step time: median" in done.stdout
    assert "WARNING" not in done.stderr
    return workdir


@pytest.mark.parametrize(
    ("point", "signals", "status"),
    [
        ("step=34", "SIGKILL", -9),
        ("checkpoint=22", "SIGKILL", -9),
        ("step=23", "SIGTERM", 143),
        ("evaluation=22", "SIGTERM", 143),
        ("checkpoint=33", "SIGUSR1", 143),
        ("step=7", "SIGINT", 130),
    ],
)
def test_a_broken_run_ends_like_an_undisturbed_one(straight, tmp_path, point, signals, status):
    broken = kill_at(point, signals, tmp_path)
    assert broken.returncode == status, broken.stdout + broken.stderr
    assert "Traceback" not in broken.stderr
    if status > 0:
        assert f"{signals}: saving, then stopping" in broken.stdout
        assert "the same command resumes" in broken.stdout.splitlines()[-3]
    if point in ("step=23", "evaluation=22"):
        assert f"saved step {point[-2:]}; " in broken.stdout
    again = train(tmp_path)
    assert "going on from step" in again.stdout
    assert_equals(tmp_path, straight)


def test_a_second_interrupt_stops_at_once(tmp_path):
    done = kill_at("step=13", "SIGINT+SIGINT", tmp_path)
    assert done.returncode == 130
    assert done.stdout.splitlines()[-1] == "SIGINT: stopping now"
    assert "saved step" not in done.stdout


def test_a_damaged_newest_checkpoint_is_moved_aside_and_the_one_before_it_used(straight, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    arrays = max(
        (workdir / "checkpoints" / "66" / "state").rglob("*"), key=lambda path: path.stat().st_size
    )
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    (workdir / "checkpoints" / "77.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    again = train(workdir)
    assert "checkpoint 66 is damaged (state/" in again.stdout
    assert "moved aside as 66.damaged" in again.stdout
    assert "going on from step 55" in again.stdout
    assert not (workdir / "checkpoints" / "77.orbax-checkpoint-tmp").exists()
    assert_equals(workdir, straight)


def test_a_run_goes_on_and_is_scored_on_other_numbers_of_devices(tmp_path):
    recipe = (*RECIPE, f"--workdir={tmp_path}", "--config.precision=float64")
    eight = run(["tests/kill_at.py", "step=26", "SIGTERM"], *recipe, **devices(8))
    assert eight.returncode == 143, eight.stdout + eight.stderr
    two = launch(*recipe, **devices(2))
    assert "going on from step 26" in two.stdout
    three = launch(
        "--mode=evaluate",
        f"--workdir={tmp_path}",
        "--which=last",
        "--batch_size=50",
        **devices(3),
    )
    score, logged = json.loads(three.stdout.splitlines()[-1]), log(tmp_path)[-1]
    assert score["examples"] == logged["examples"] == 355
    assert (score["top1"], score["top5"]) == (logged["top1"], logged["top5"])
    assert score["loss"] == pytest.approx(logged["loss"], abs=1e-12)


def test_before_the_first_step_a_signal_ends_the_run_at_once(tmp_path):
    done = kill_at("compiling", "SIGTERM", tmp_path)
    assert done.returncode == 143
    assert done.stdout.splitlines()[-1] == "SIGTERM: stopping now"
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "lock.json").exists()


def test_the_runtime_is_prepared_for_the_precision_that_the_run_has(tmp_path, monkeypatch):
    class Prepared(Exception):
        pass

    def prepare_runtime(precision, deterministic):
        raise Prepared(precision)

    config = config_lib.defaults()
    config.precision = "float64"
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "config.json").write_text(config_lib.to_json(config))
    module = importlib.import_module("resnet_jax.commands.train")
    monkeypatch.setattr(module, "prepare_runtime", prepare_runtime)
    with pytest.raises(Prepared, match="float64"):
        module.train(config_lib.defaults(), str(tmp_path))


def test_a_finished_run_writes_the_lost_names_of_its_classes_again(tmp_path):
    verb.train(tiny_recipe(num_epochs=1), tmp_path / "run")
    names = tmp_path / "run" / "classes.txt"
    kept = names.read_text()
    names.unlink()
    verb.train(tiny_recipe(num_epochs=1), tmp_path / "run")
    assert names.read_text() == kept


def test_a_run_that_is_made_shorter_than_it_is_ends_with_scores(tmp_path, capsys):
    verb.train(tiny_recipe(num_epochs=2, eval_every_epochs=2.0), tmp_path)
    *_, last = sorted((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(last)  # now the last one has no scores
    accepted = verb.Accepted(("num_epochs", "eval_every_epochs"), False)
    verb.train(tiny_recipe(num_epochs=0.5, eval_every_epochs=2.0), tmp_path, accepted=accepted)
    assert "best: top1" in capsys.readouterr().out


def test_a_start_that_is_refused_leaves_the_run_to_its_own_command(tmp_path):
    verb.train(tiny_recipe(num_epochs=0.5), tmp_path)
    kept = {name: (tmp_path / name).read_text() for name in ("config.json", "environment.json")}
    other = tiny_recipe(num_epochs=1.0, optimizer__clip_norm=1.0)
    with pytest.raises(resnet_jax.UserError, match="of another network or optimizer"):
        verb.train(other, tmp_path, accepted=verb.Accepted(("optimizer.clip_norm",)))
    assert {name: (tmp_path / name).read_text() for name in kept} == kept
    verb.train(tiny_recipe(num_epochs=1.0), tmp_path)
    assert resnet_jax.restore(tmp_path, "last")[2].step == 22


def test_none_takes_a_limit_back_where_the_field_is_accepted(tmp_path, capsys):
    early = {"eval_every_epochs": 0.5, "log_every_steps": 1000}
    verb.train(tiny_recipe(num_epochs=1, stop_at_top1=0.001, **early), tmp_path)
    said = capsys.readouterr().out
    assert "the run ends at step 11" in said
    assert "· 0 images/s" not in said
    verb.train(tiny_recipe(num_epochs=1, **early), tmp_path)
    assert "nothing to do" in capsys.readouterr().out
    accepted = verb.Accepted(("stop_at_top1",))
    verb.train(tiny_recipe(num_epochs=1, **early), tmp_path, accepted=accepted)
    said = capsys.readouterr().out
    assert "going on with another recipe: config.stop_at_top1 is None, the run has 0.001" in said
    assert resnet_jax.restore(tmp_path, "last")[2].step == 22
