import pytest
from running import tiny_recipe

from resnet_jax.commands.train import train
from resnet_jax.errors import UserError
from resnet_jax.sweep import assigned, final_scores, parse_axis, sweep, table


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
