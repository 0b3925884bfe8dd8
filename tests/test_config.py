import numpy as np
import pytest

from resnet_jax import config as config_lib
from resnet_jax.errors import UserError


def test_the_form_on_disk_gives_back_the_same_recipe():
    config = config_lib.defaults()
    config.schedule.boundaries = (1.0, 2.5)
    config.data.dir = "somewhere"
    config.model.num_classes = 7
    again = config_lib.from_json(config_lib.to_json(config))
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.schedule.boundaries, tuple)


def test_a_recipe_cannot_invent_a_field():
    config = config_lib.defaults()
    with pytest.raises((AttributeError, KeyError)):
        config.optimizer.momentun = 0.5


@pytest.mark.parametrize(
    ("dotted", "value", "words"),
    [
        ("batch_size", 0, "config.batch_size = 0: must be above 0"),
        ("precision", "half", "config.precision = 'half': must be one of auto, float32"),
        ("optimizer.name", "sdg", "config.optimizer.name = 'sdg': must be one of sgd"),
        (
            "schedule.boundaries",
            (30.0, 20.0),
            "config.schedule.boundaries = (30.0, 20.0): must increase",
        ),
        (
            "schedule.boundaries",
            (-1.0,),
            "config.schedule.boundaries = (-1.0,): must be at least 0",
        ),
        ("optimizer.eps", 0.0, "config.optimizer.eps = 0.0: must be above 0"),
        ("checkpoint.keep", 1, "config.checkpoint.keep = 1: must be at least 2"),
        ("loss.label_smoothing", 1.0, "config.loss.label_smoothing = 1.0: must be below 1"),
        ("model.name", "resnet51", "did you mean"),
        ("data.name", "mnits", "did you mean 'mnist'"),
        ("accumulate_steps", 3, "config.accumulate_steps = 3: must divide config.batch_size = 256"),
    ],
)
def test_a_bad_value_stops_with_one_line(dotted, value, words):
    config = config_lib.defaults()
    config_lib.set_field(config, dotted, value)
    with pytest.raises(UserError) as error:
        config_lib.validate(config)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_goes_on_only_with_its_own_recipe():
    old, new = config_lib.defaults(), config_lib.defaults()
    old.precision, old.model.num_classes = "float32", 10
    assert config_lib.differences(old, new) == []
    new.num_epochs, new.data.dir, new.checkpoint.keep, new.log_every_steps = (
        120.0,
        "elsewhere",
        5,
        7,
    )
    assert config_lib.differences(old, new) == []
    new.num_epochs, new.seed, new.schedule.base_lr = 60.0, 1, 0.2
    assert sorted(config_lib.differences(old, new)) == [
        ("num_epochs", "config.num_epochs is 60.0, the run has 90.0"),
        ("schedule.base_lr", "config.schedule.base_lr is 0.2, the run has 0.1"),
        ("seed", "config.seed is 1, the run has 0"),
    ]


def test_accumulation_may_change_and_a_rate_that_stands_as_it_is_is_no_open_field():
    old, new = config_lib.defaults(), config_lib.defaults()
    new.accumulate_steps, new.schedule.base_batch_size = 4, None
    assert dict(config_lib.differences(old, new)) == {
        "schedule.base_batch_size": "config.schedule.base_batch_size is None, the run has 0"
    }


def test_the_network_follows_the_precision():
    config = config_lib.defaults()
    config.precision = "bfloat16"
    model = config_lib.build_model(config)
    assert (str(model.dtype), str(model.param_dtype)) == ("bfloat16", "float32")


def test_a_recipe_that_lacks_fields_is_told_where_to_start():
    config = config_lib.defaults()
    with config.unlocked():
        del config.data.flip
    with pytest.raises(UserError, match=r"config.data.flip is missing; start the recipe from"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("dotted", "computed", "value"),
    [
        ("batch_size", 512 / 8, 64),
        ("batch_size", np.int64(64), 64),
        ("batch_size", np.float32(64), 64),
        ("num_epochs", np.float64(2.5), 2.5),
        ("num_epochs", np.int32(3), 3.0),
        ("data.flip", np.bool_(True), True),
        ("schedule.boundaries", np.array([30, 60.5]), (30.0, 60.5)),
        ("schedule.boundaries", [np.float64(1)], (1.0,)),
        ("model.stage_sizes", (2.0, np.int64(3)), (2, 3)),
        ("checkpoint.every_minutes", np.float32(0.5), 0.5),
    ],
)
def test_a_number_may_be_computed_in_any_form(dotted, computed, value):
    config = config_lib.defaults()
    config_lib.set_field(config, dotted, computed)
    kept = dict(config_lib.flatten(config_lib.from_json(config_lib.to_json(config))))[dotted]
    section, _, name = dotted.rpartition(".")
    there = getattr(getattr(config, section) if section else config, name)
    assert there == value
    assert type(there) is type(value)
    assert kept == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("batch_size", 64.5),
        ("batch_size", "64"),
        ("batch_size", True),
        ("seed", np.array([1, 2])),
        ("data.flip", 1),
        ("schedule.boundaries", 30.0),
        ("model.stage_sizes", (2, 2.5)),
        ("model.name", 18),
        ("loss", 5),
    ],
)
def test_a_value_of_another_type_is_named_with_its_field_where_it_is_set(dotted, value):
    config = config_lib.defaults()
    section, _, name = dotted.rpartition(".")
    with pytest.raises((UserError, TypeError)) as error:
        setattr(config[section] if section else config, name, value)
    assert f"{name}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_field_keeps_its_type_while_it_is_none():
    config = config_lib.defaults()
    config.schedule.base_batch_size = None
    config.num_epochs = np.float64(3)
    assert config.schedule.get_type("base_batch_size") is int
    assert config.get_type("num_epochs") is float
    assert config.model.get_type("num_classes") is int


@pytest.mark.parametrize("dotted", ["lr", "optimizer.lr", "optimizer.learning_rate"])
def test_other_names_of_the_rate_suggest_ours(dotted):
    with pytest.raises(UserError, match=r"did you mean 'schedule\.base_lr'\?"):
        config_lib.field_of(dotted)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("erasing_fill", "noise"),
        ("mix_probability", 0.5),
        ("synthetic_classes", 5),
        ("max_skipped", 0.5),
        ("holdout", "name"),
    ],
)
def test_a_field_that_needs_another_is_named_and_what_an_older_run_was_given_is_not(field, value):
    config = config_lib.defaults()
    config.data[field] = value
    (line,) = config_lib.warnings(config)
    assert line.startswith(f"config.data.{field} = {value!r} has no effect")
    config.data[field], config.data.holdout = config_lib.defaults().data[field], "position"
    assert config_lib.warnings(config) == []
