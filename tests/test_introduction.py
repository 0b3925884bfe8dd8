"""What a person is told when a run starts."""

import pytest
from running import tiny_recipe

from resnet_jax import introduction
from resnet_jax.experiment import Experiment
from resnet_jax.models import zoo
from resnet_jax.training.reporting import outlook
from resnet_jax.training.reporting.outlook import Outlook


def rows(**changes):
    experiment = Experiment.for_training(tiny_recipe(**changes))
    return dict(introduction.rows(experiment, "runs/tiny"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule__base_lr": 0.4}, "peak rate 0.1 = base_lr 0.4 x batch 64 / 256"),
        (
            {"schedule__base_lr": 0.4, "schedule__base_batch_size": 32},
            "peak rate 0.8 = base_lr 0.4 x batch 64 / 32",
        ),
        ({"schedule__base_batch_size": None, "schedule__base_lr": 0.3}, "peak rate 0.3 = base_lr"),
        ({"optimizer__name": "adam", "schedule__base_lr": 0.01}, "peak rate 0.01 = base_lr"),
    ],
)
def test_the_peak_rate_is_said_with_how_it_came_about(changes, words):
    assert words in rows(**changes)["schedule"]


def test_a_size_to_score_at_is_said_where_it_is_another():
    assert "images of 8×8×1, scored at 12×12, 10 classes" in rows(data__eval_size=12)["data"]


def test_a_network_that_is_not_the_one_of_its_name_is_called_so():
    said = rows(model__stage_sizes=(1, 1, 1), model__width=16)["model"]
    assert said.startswith("resnet18 with stage_sizes (1, 1, 1), stem small, width 16: 77,")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"name": "resnet18"}, "resnet18"),
        ({"name": "resnet18", "num_classes": 10, "width": None}, "resnet18"),
        ({"name": "resnet18", "width": 64, "stem": "imagenet"}, "resnet18"),
        ({"name": "resnet50_v2", "width": 32}, "resnet50_v2 with width 32"),
        ({"name": "cifar_resnet20", "dropout": 0.5}, "cifar_resnet20 with dropout 0.5"),
    ],
)
def test_only_fields_that_differ_from_the_table_are_named(fields, name):
    assert zoo.describe(fields) == name


def test_an_epoch_of_hours_is_said_once_after_three_steps(monkeypatch):
    monkeypatch.setattr(outlook, "used_memory", lambda: None)
    seen = Outlook(5000, "a smaller network")
    assert [seen.step(seconds) for seconds in (90.0, 4.0)] == [[], []]
    (line,) = seen.step(4.0)
    assert line.startswith("an epoch of 5,000 steps will take about 5.6 hours, 4.0 s a step")
    assert line.endswith("a smaller network")
    assert seen.step(90.0) == []


@pytest.mark.parametrize(("used", "lines"), [(3, 0), (5, 1)])
def test_more_than_half_of_the_memory_is_said(monkeypatch, used, lines):
    monkeypatch.setattr(outlook, "used_memory", lambda: used * 2**30)
    monkeypatch.setattr(outlook, "total_memory", lambda: 8 * 2**30)
    seen = Outlook(10, "a smaller network")
    found = [line for _ in range(3) for line in seen.step(0.1)]
    assert len(found) == lines
    assert all("5.0 of the machine's 8.0 GiB" in line for line in found)


def test_the_memory_of_this_process_and_machine_is_read():
    used, total = outlook.used_memory(), outlook.total_memory()
    assert 2**24 < used < total


def test_a_large_image_and_a_small_stem_are_what_is_advised_against():
    experiment = Experiment.for_training(
        tiny_recipe(data__name="synthetic", data__image_size=128, data__synthetic_train=640)
    )
    said = introduction.advice(experiment)
    assert 'config.model.stem="imagenet"' in said
    assert "config.data.image_size than 128" in said


def test_sizes_that_are_never_reached_are_said():
    sizes = {"data__image_size": 8, "data__progressive_sizes": (4, 6)}
    experiment = Experiment.for_training(
        tiny_recipe(**sizes, data__progressive_epochs=(1.0, 2.0), num_epochs=2.0)
    )
    (line,) = (line for line in introduction.warnings(experiment) if "progressive" in line)
    assert line.startswith("data.progressive_epochs [2.0] lie at or past the last epoch (2)")
    assert ("sizes", "images of 4 to epoch 1, 6 to epoch 2, then 8") in introduction.rows(
        experiment, "somewhere"
    )


def test_frozen_parameters_that_never_train_are_said():
    frozen = {"optimizer__freeze": ("all but fc",), "optimizer__freeze_epochs": 2.0}
    lines = {
        epochs: introduction.warnings(
            Experiment.for_training(tiny_recipe(num_epochs=epochs, **frozen))
        )
        for epochs in (2.0, 3.0)
    }
    (line,) = (line for line in lines[2.0] if "freeze_epochs" in line)
    assert line.endswith("at or past the last epoch (2): the frozen parameters never train")
    assert not any("freeze_epochs" in line for line in lines[3.0])
