"""What a command cannot do is said in one line, before anything is computed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from running import tiny_recipe

import resnet_jax
from resnet_jax import UserError
from resnet_jax import config as config_lib
from resnet_jax.__main__ import main
from resnet_jax.classifier import Classifier, Named
from resnet_jax.description import Description

RUN = Path(__file__).parents[1] / "workdir"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--config is missing: name a recipe"),
        (
            ["--mode=evaluate", "--weights=x", "--accept_data_change"],
            "has no effect with --weights",
        ),
        (
            ["--mode=evaluate", f"--workdir={RUN}", "--eval_size=64,big"],
            "--eval_size=64,big: must be",
        ),
        (
            ["--mode=export", f"--workdir={RUN}", "--format=torch", "--output_dir=gs://b/x"],
            "--output_dir=gs://b/x: must be a local directory",
        ),
        (["--mode=prepare", "--data_dir=."], "--output_dir is missing"),
        (
            ["--mode=summarize", "--workdir=gs://b/x", "--model=resnet18"],
            "must be a local directory",
        ),
        (
            ["--mode=evaluate", f"--workdir={RUN}", "--output_dir=gs://b/x"],
            "--output_dir=gs://b/x: must be a local directory",
        ),
        (
            ["--mode=evaluate", f"--workdir={RUN}", "--output_dir=/proc/none"],
            "--output_dir=/proc/none: cannot be written to",
        ),
        (
            ["--mode=evaluate", f"--workdir={RUN}", "--eval_size=9000"],
            "--eval_size=9000: must be at most 8192",
        ),
        (
            ["--config=configs/quickstart.py", "--sweep=seed=0,1", "--profile=1:2"],
            "--profile is for one run: leave it out, or leave out --sweep",
        ),
        (["--mode=summarize", "--process_id=0"], "--mode=summarize runs in one process"),
        (["--config=nowhere"], "--mode=recipes lists what there is"),
    ],
)
def test_what_a_command_cannot_do_is_said_in_one_line(arguments, words, capsys):
    assert main(["launch.py", *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert said.count("\n") == 1


def test_a_network_without_a_classifier_names_nothing_and_a_short_list_is_refused(tmp_path):
    model = resnet_jax.ResNet(stage_sizes=(1,), block="basic", width=8, num_classes=0)
    with pytest.raises(UserError, match="the file: has no classifier"):
        Classifier(model, {}, Description(source="the file")).predict(
            [np.zeros((8, 8, 3), "uint8")]
        )
    model = resnet_jax.ResNet(stage_sizes=(1, 1), block="basic", width=8, num_classes=3)
    with pytest.MonkeyPatch.context() as patch:
        loaded = model, {}, Description(source="the file")
        patch.setattr("resnet_jax.pretrained.load_pretrained", lambda *_, **__: loaded)
        names = tmp_path / "names.txt"
        names.write_text("cat\ndog\n")
        named = Named(weights="the file", classes=str(names))
        with pytest.raises(
            UserError, match="lists 2 classes, and the file has 3; give it one line"
        ):
            named.load()


def test_a_damaged_checkpoint_is_not_restored_and_another_is_named(tmp_path):
    shutil.copytree(RUN, tmp_path / "run")
    step = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    file = max((path for path in step.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        UserError, match=rf"checkpoint {step.name} of .* is damaged .*: restore it from a copy"
    ):
        resnet_jax.restore(tmp_path / "run", "last")


def test_recipes_that_do_not_fit_the_devices_or_the_network_are_refused():
    config = tiny_recipe(accumulate_steps=3, batch_size=24)
    with pytest.raises(UserError, match="accumulate_steps = 3: must divide the 4 images"):
        config_lib.check_batch(config, 6)
    with pytest.raises(UserError, match=r"too small for the strides of resnet50.* begin with"):
        tiny_recipe(
            model__name="resnet50",
            model__stem="imagenet",
            model__stage_sizes=(1, 1, 1, 1),
            data__progressive_sizes=(8,),
            data__progressive_epochs=(1,),
            data__image_size=64,
        )
