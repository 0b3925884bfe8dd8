import pytest
from running import tiny_recipe

from resnet_jax.commands.train import train
from resnet_jax.distributed.lock import Lock
from resnet_jax.distributed.signals import Interrupted
from resnet_jax.errors import UserError
from resnet_jax.sweep import _directory, assigned, final_scores, parse_axis, sweep, table


def tiny():
    return tiny_recipe(batch_size=256, num_epochs=0.4, schedule__boundaries=())


def test_an_axis_is_read_as_values_of_its_field():
    assert parse_axis("seed=0,2") == [("seed", 0), ("seed", 2)]
    assert parse_axis("config.schedule.base_lr=0.1,1") == [
        ("schedule.base_lr", 0.1),
        ("schedule.base_lr", 1.0),
    ]
    assert parse_axis("optimizer.nesterov=True,False") == [
        ("optimizer.nesterov", True),
        ("optimizer.nesterov", False),
    ]


def test_an_axis_may_hold_none_where_its_field_may():
    assert parse_axis("optimizer.clip_norm=None,1.0") == [
        ("optimizer.clip_norm", None),
        ("optimizer.clip_norm", 1.0),
    ]


@pytest.mark.parametrize(
    "axis",
    ["sed=0,1", "seed", "seed=a", "seed=", "schedule.boundaries=1,2", "optimizer.nesterov=1"],
)
def test_an_axis_that_cannot_be_read_is_refused(axis):
    with pytest.raises(UserError):
        parse_axis(axis)


def test_a_bad_combination_stops_before_any_run(tmp_path):
    with pytest.raises(UserError, match=r"optimizer\.momentum"):
        sweep(tiny(), ["optimizer.momentum=0.9,1.5"], str(tmp_path / "sweep"), train)
    assert not (tmp_path / "sweep").exists()


def test_what_holds_for_a_whole_process_is_no_axis(tmp_path):
    with pytest.raises(UserError, match="once with each value"):
        sweep(tiny(), ["deterministic=False,True"], str(tmp_path / "sweep"), train)
    assert not (tmp_path / "sweep").exists()


def test_every_combination_is_trained_once_and_a_second_call_trains_none(tmp_path, capsys):
    sweep(tiny(), ["seed=0,1"], str(tmp_path), train)
    first = (tmp_path / "sweep.md").read_text()
    scores = [final_scores(tmp_path / f"seed={seed}")["top1"] for seed in (0, 1)]
    assert f"| seed=1 | {scores[1]:.4f} |" in first
    assert f"{sum(scores) / 2:.4f} ±" in first
    capsys.readouterr()
    sweep(tiny(), ["seed=0,1"], str(tmp_path), train)
    assert capsys.readouterr().out.count("is finished") == 2
    assert (tmp_path / "sweep.md").read_text() == first


def test_a_value_that_is_a_path_makes_one_directory(tmp_path):
    config = tiny_recipe(batch_size=256, num_epochs=0.4, schedule__boundaries=())
    with pytest.raises(UserError, match="2 of 2 runs failed"):
        sweep(config, ["init.weights=no/wh/ere,./here"], str(tmp_path / "sweep"), train)
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {"sweep.md"}
    made = [_directory(tmp_path, (("init.weights", value),)) for value in ("a/b", "a_b")]
    assert [path.parent for path in made] == [tmp_path, tmp_path]
    assert made[0] != made[1]


def test_a_run_that_diverges_is_marked_and_the_others_go_on(tmp_path, capsys):
    axes = ["schedule.base_lr=1e38,0.1", "seed=0,1"]
    with pytest.raises(UserError, match=r"2 of 4 runs failed .*base_lr=1e\+38,seed=1"):
        sweep(tiny(), axes, str(tmp_path), train)
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    failed = [line for line in lines if line.startswith("| schedule.base_lr=1e+38")]
    assert len(failed) == 2
    assert all("| failed | loss or gradients are not finite at step" in line for line in failed)
    assert any(line.startswith("| **schedule.base_lr=0.1**, 2 runs |") for line in lines)
    assert (tmp_path / "schedule.base_lr=0.1,seed=1" / "checkpoints").is_dir()
    assert "run 1/4 failed: loss" in capsys.readouterr().out


def test_an_error_of_ours_in_one_run_is_marked_and_has_its_traceback(tmp_path, capsys):
    def fail_once(config, workdir, **keywords):
        if config.seed == 0:
            raise ZeroDivisionError("division|by zero")
        train(config, workdir, **keywords)

    with pytest.raises(UserError, match=r"1 of 2 runs failed \(seed=0\)"):
        sweep(tiny(), ["seed=0,1"], str(tmp_path), fail_once)
    assert "| seed=0 | failed | division\\|by zero |" in (tmp_path / "sweep.md").read_text()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_sweep_stops_at_a_signal_and_leaves_no_lock(tmp_path):
    def interrupt(config, workdir, **keywords):
        raise Interrupted(143)

    with pytest.raises(Interrupted):
        sweep(tiny(), ["seed=0,1"], str(tmp_path), interrupt)
    assert not (tmp_path / "lock.json").exists()


def test_a_signal_after_a_run_s_last_step_keeps_the_next_from_starting(tmp_path):
    begun = []

    def asked_at_the_end(config, workdir, signals):
        begun.append(config.seed)
        train(config, workdir, signals=signals)
        signals.stop = 143

    with pytest.raises(Interrupted) as stopped:
        sweep(tiny(), ["seed=0,1"], str(tmp_path), asked_at_the_end)
    assert stopped.value.status == 143
    assert begun == [0]


def test_a_second_sweep_in_the_same_directory_is_refused(tmp_path):
    with Lock(tmp_path), pytest.raises(UserError, match="in use by process"):
        sweep(tiny(), ["seed=0,1"], str(tmp_path), train)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "inside", "inside/of/it"])
def test_a_sweep_has_a_directory_of_its_own_and_none_inside_a_run(tmp_path, below):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "environment.json"):
        (run / name).write_text("{}")
    with pytest.raises(UserError, match=f"is that of a run; .* --workdir={run}_sweep"):
        sweep(tiny(), ["seed=0,1"], str(run / below), train)


def test_an_axis_without_effect_is_refused_and_one_with_an_effect_in_some_runs_is_not(tmp_path):
    with pytest.raises(UserError, match=r"--sweep=optimizer\.b1 has no effect: it needs"):
        sweep(tiny(), ["optimizer.b1=0.8,0.9"], str(tmp_path), train)
    ran = []
    axes = ["optimizer.name=sgd,adam", "optimizer.b1=0.8,0.9"]
    with pytest.raises(UserError, match="4 of 4"):
        sweep(tiny(), axes, str(tmp_path), lambda *_, signals: ran.append(1 / 0))


def test_the_table_averages_over_the_seeds_of_each_kind():
    scores = {
        (("model.name", name), ("seed", seed)): {"top1": top1, "loss": 1.0}
        for name, seed, top1 in (("a", 0, 0.8), ("a", 1, 0.9), ("b", 0, 0.5), ("b", 1, 0.5))
    }
    lines = table(scores)
    assert "| **model.name=a**, 2 runs | 0.8500 ± 0.0707 | 1.0000 ± 0.0000 |" in lines
    assert "| **model.name=b**, 2 runs | 0.5000 ± 0.0000 | 1.0000 ± 0.0000 |" in lines


def test_an_assignment_leaves_the_shared_recipe_alone():
    config = tiny()
    assert assigned(config, (("seed", 5),)).seed == 5
    assert config.seed == 0
