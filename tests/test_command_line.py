"""What is typed has an effect, or is refused: recipes and flags as the command line reads them."""

import pytest
from running import ROOT, launch

from resnet_jax import config as fields
from resnet_jax import recipes
from resnet_jax.__main__ import find_recipe, parse
from resnet_jax.errors import UserError

HEAD = "import numpy as np\nfrom resnet_jax.config import defaults\n\ndef get_config():\n"


def recipe(directory, *lines):
    body = ["config = defaults()", "config.data.name = 'digits'", *lines, "return config"]
    (directory / "recipe.py").write_text(HEAD + "".join(f"    {line}\n" for line in body))
    return f"--config={directory / 'recipe.py'}"


def config_of(*arguments):
    return parse(["launch.py", *arguments])[1].config


@pytest.mark.parametrize("number", ["512 / 8", "np.int64(64)", "np.float64(512) / 8", "64"])
def test_a_whole_number_may_be_computed_in_a_recipe(tmp_path, number):
    config = config_of(recipe(tmp_path, f"config.batch_size = {number}"))
    assert (config.batch_size, type(config.batch_size)) == (64, int)


def test_a_number_that_is_not_whole_is_refused_with_its_line(tmp_path):
    with pytest.raises(UserError) as error:
        config_of(recipe(tmp_path, "config.batch_size = 513 / 8"))
    message = str(error.value)
    assert "line 7" in message
    assert "config.batch_size = 64.125: must be a whole number" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("line", "flag", "value"),
    [
        ("config.num_epochs = np.float32(3)", "--config.num_epochs=2.5", 2.5),
        ("config.schedule.base_lr = 0.1 * np.sqrt(4)", "--config.schedule.base_lr=0.3", 0.3),
        ("config.batch_size = np.int64(32)", "--config.batch_size=16", 16),
        ("config.data.flip = np.bool_(False)", "--config.data.flip=True", True),
        ("config.data.flip = np.bool_(False)", "--config.data.flip", True),
        ("config.schedule.base_batch_size = None", "--config.schedule.base_batch_size=512", 512),
        ("config.schedule.boundaries = np.arange(3.)", "--config.schedule.boundaries=(7,)", (7.0,)),
        ("config.model.stage_sizes = np.array([1, 1])", "--config.model.stage_sizes=(2,)", (2,)),
    ],
)
def test_whatever_a_recipe_computes_the_command_line_overrides(tmp_path, line, flag, value):
    config = config_of(recipe(tmp_path, line), flag)
    section, _, name = flag.removeprefix("--config.").partition("=")[0].rpartition(".")
    assert (config[section] if section else config)[name] == value


@pytest.mark.parametrize(
    ("values", "last"),
    [
        (("None", "5"), 5),
        (("5", "None"), None),
        (("None", "None"), None),
        (("5", "7"), 7),
        (("None", "5", "None"), None),
        (("5", "None", "7"), 7),
    ],
)
@pytest.mark.parametrize("joined", [True, False])
def test_of_a_flag_that_is_given_again_the_last_counts(tmp_path, values, last, joined):
    flag = "--config.eval_batch_size"
    words = [
        word for value in values for word in ([f"{flag}={value}"] if joined else [flag, value])
    ]
    assert config_of(recipe(tmp_path), *words).eval_batch_size == last


def test_a_recipe_is_found_by_its_name():
    assert find_recipe("quickstart").samefile(ROOT / "configs" / "quickstart.py")
    tutorial = find_recipe("tutorials/resnet50_imagenet")
    assert tutorial.samefile(ROOT / "configs" / "tutorials" / "resnet50_imagenet.py")
    assert not tutorial.samefile(find_recipe("resnet50_imagenet"))


def test_a_recipe_of_ones_own_comes_before_one_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("")
    assert find_recipe("quickstart").samefile(tmp_path / "quickstart")


def test_the_recipes_are_listed_with_what_they_are():
    lines = launch("--mode=recipes").stdout.splitlines()
    files = list((ROOT / "configs").rglob("*.py"))
    assert len(lines) == len(files)
    (line,) = [line for line in lines if line.startswith("quickstart ")]
    assert "ResNet-8 on 1,797 handwritten digits" in line


def test_a_folder_of_recipes_here_hides_none_of_those_that_came_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "of_another_tool.py").write_text("print 1")
    (tmp_path / "configs" / "mine.py").write_text("def get_config():\n    ...")
    (tmp_path / "configs" / "half.py").write_text("def get_config(:\n")
    (tmp_path / "configs" / "gone.py").symlink_to("nowhere.py")
    listed = recipes.shipped()
    assert {"quickstart", "mine", "imagenet/resnet18"} <= set(listed)
    assert not {"of_another_tool", "gone"} & set(listed)
    assert recipes.headline(listed["half"]).startswith("Cannot be read: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.lr=0.1"], "did you mean 'schedule.base_lr'?"),
        (["--config.optimizer.lr=0.1"], "did you mean 'schedule.base_lr'?"),
        (["--batch_size=4"], "--batch_size is no flag of --mode=train"),
        (["--eval_fraction=0.3"], "--eval_fraction is no flag of --mode=train"),
        (["--data_dir=somewhere"], "--data_dir is no flag of --mode=train"),
        (["--split=test"], "--split is no flag of --mode=train; it is one of --mode=evaluate"),
        (["--mode=summarize", "--accept_data_change"], "--accept_data_change is no flag"),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path, arguments, words):
    with pytest.raises(UserError) as error:
        parse(["launch.py", recipe(tmp_path), *arguments])
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--config.optimizer.name=adam", "--config.optimizer.nesterov=True"],
            "--config.optimizer.nesterov has no effect: it needs config.optimizer.name = sgd or lars",
        ),
        (["--config.optimizer.b1=0.8"], "needs config.optimizer.name = adam or adamw or lamb"),
        (
            ["--config.schedule.name=cosine", "--config.schedule.boundaries=(1,)"],
            "--config.schedule.boundaries has no effect: it needs config.schedule.name = step",
        ),
        (["--config.schedule.warmup_factor=0.5"], "it needs config.schedule.warmup_epochs"),
        (["--config.data.erasing_scale=(0.1,0.2)"], "it needs config.data.random_erasing"),
        (
            ["--config.data.mix_probability=0.5"],
            "it needs config.data.mixup or config.data.cutmix",
        ),
        (["--config.data.synthetic_train=5"], "it needs config.data.name = synthetic"),
        (["--config.data.crop_scale=(0.1,1)", "--config.data.random_resized_crop=False"], "needs"),
    ],
)
def test_a_field_that_was_typed_and_does_nothing_beside_the_others_is_refused(
    tmp_path, flags, words
):
    with pytest.raises(UserError) as error:
        config_of(recipe(tmp_path), *flags)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "flags",
    [
        ["--config.optimizer.name=adam", "--config.optimizer.b1=0.8"],
        ["--config.data.cutmix=1", "--config.data.mix_probability=0.5"],
        ["--config.data.crop_scale=(0.1,1)"],
    ],
)
def test_a_field_that_was_typed_and_has_an_effect_is_taken(tmp_path, flags):
    assert config_of(recipe(tmp_path), *flags)


def test_a_field_that_a_recipe_sets_for_another_case_is_named_in_a_line(tmp_path):
    config = config_of(
        recipe(tmp_path, "config.optimizer.nesterov = True"), "--config.optimizer.name=adamw"
    )
    (line,) = fields.warnings(config)
    assert line == (
        "config.optimizer.nesterov = True has no effect: it needs config.optimizer.name = sgd or "
        "lars"
    )
