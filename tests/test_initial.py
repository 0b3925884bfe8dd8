"""Runs that start from weights and train a part of them first."""

import json
import re

import jax
import numpy as np
import pytest
from running import QUICK, devices, error_line, launch, log, run, tiny_recipe

import resnet_jax
from resnet_jax import ResNet, UserError, save_torch
from resnet_jax.commands.train import train
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.experiment import Experiment
from resnet_jax.models.interop.torch_files import read_weights, write_weights

SMALL = (QUICK, "--config.model.width=4", "--config.model.stage_sizes=1,1")
SMALL += ("--config.schedule.warmup_epochs=0", "--config.num_epochs=1")
FREEZE = ("--config.optimizer.freeze=('all but fc',)",)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("parent")
    launch(*SMALL, "--config.num_epochs=4", f"--workdir={workdir}")
    return workdir


def variables(workdir, which="last"):
    return jax.tree.map(np.asarray, resnet_jax.restore(workdir, which)[1])


def body(tree):
    return {
        "params": {k: v for k, v in tree["params"].items() if k != "fc"},
        "stats": tree["batch_stats"],
    }


def test_images_are_filled_by_the_weights_mean_from_the_start_as_after_a_resume(tmp_path):
    other = {"data__mean": (0.9,), "data__std": (0.5,)}
    train(tiny_recipe(num_epochs=0.1, **other), str(tmp_path))
    fields = {"init__weights": str(tmp_path), "data__policy": "randaugment", "data__policy_m": 10.0}
    first = Experiment.for_training(tiny_recipe(**fields))
    assert first.train_loader.moments() == ((0.9,), (0.5,))
    again = Experiment.for_training(first.config)
    assert first.config == again.config
    np.testing.assert_array_equal(first.train_loader[0]["image"], again.train_loader[0]["image"])


def test_a_linear_probe_keeps_every_frozen_array_bit_for_bit(parent, tmp_path):
    done = launch(
        *SMALL,
        *FREEZE,
        f"--config.init.weights={parent}",
        "--config.init.head=fresh",
        "--config.optimizer.weight_decay=0.1",
        f"--workdir={tmp_path}",
    )
    assert f"starting from {parent}" in done.stdout
    assert "new: fc.bias, fc.kernel" in done.stdout
    assert "frozen" in done.stdout
    assert "rate × 1" in done.stdout
    start, end = variables(parent, "best"), variables(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, body(end), body(start))
    assert not np.array_equal(end["params"]["fc"]["kernel"], start["params"]["fc"]["kernel"])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["init"]["weights"] == str(parent)
    assert len(config["init"]["digest"]) == 64


def test_the_same_classes_keep_the_classifier(parent, tmp_path):
    done = launch(*SMALL, f"--config.init.weights={parent}", "--config.schedule.base_lr=1e-9",
                  f"--workdir={tmp_path}")  # fmt: skip
    assert "arrays taken, the classifier too" in done.stdout
    scores = [line["top1"] for line in log(parent) if line["split"] == "test"]
    assert log(tmp_path)[-1]["top1"] == pytest.approx(max(scores), abs=0.03)


def test_a_resume_inside_each_phase_is_bit_exact_and_needs_the_weights_no_more(parent, tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_torch(resnet_jax.restore(parent)[1], weights)
    recipe = (*SMALL, *FREEZE, f"--config.init.weights={weights}", "--config.num_epochs=2")
    recipe += ("--config.optimizer.freeze_epochs=1", "--config.optimizer.name=adamw")
    recipe += (
        "--config.schedule.base_lr=0.01",
        "--config.checkpoint.every_epochs=0.5",
        "--config.checkpoint.keep=9",
    )
    recipe += ("--config.optimizer.rates=('all but fc=0.1',)",)
    straight = tmp_path / "straight"
    done = launch(*recipe, f"--workdir={straight}")
    assert "frozen 1 epochs, then rate × 0.1" in done.stdout
    after_first = variables(straight, 22)
    start = variables(parent, "best")
    jax.tree.map(np.testing.assert_array_equal, body(after_first), body(start))
    assert not np.array_equal(
        variables(straight)["params"]["conv1"]["kernel"], start["params"]["conv1"]["kernel"]
    )
    broken = tmp_path / "broken"
    for point in ("step=15", "step=37"):
        killed = run(["tests/kill_at.py", point, "SIGTERM"], *recipe, f"--workdir={broken}")
        assert killed.returncode == 143, killed.stdout + killed.stderr
        weights.unlink(missing_ok=True)
    launch(*recipe, f"--workdir={broken}")
    jax.tree.map(np.testing.assert_array_equal, variables(broken), variables(straight))
    assert log(broken) == log(straight)


def test_it_starts_alike_on_eight_devices(parent, tmp_path):
    recipe = (*SMALL, *FREEZE, f"--config.init.weights={parent}", "--config.init.head=fresh")
    one, eight = tmp_path / "one", tmp_path / "eight"
    launch(*recipe, f"--workdir={one}")
    launch(*recipe, f"--workdir={eight}", **devices(8))
    jax.tree.map(np.testing.assert_array_equal, body(variables(eight)), body(variables(one)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        variables(eight)["params"]["fc"],
        variables(one)["params"]["fc"],
    )


def test_norm_frozen_holds_the_statistics_of_what_trains_too(parent, tmp_path):
    launch(*SMALL, f"--config.init.weights={parent}", "--config.model.norm_frozen=True",
           f"--workdir={tmp_path}")  # fmt: skip
    start, end = variables(parent, "best"), variables(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, end["batch_stats"], start["batch_stats"])
    assert not np.array_equal(end["params"]["bn1"]["scale"], start["params"]["bn1"]["scale"])


def test_a_part_that_is_frozen_keeps_its_statistics_and_the_others_move(parent, tmp_path):
    launch(*SMALL, f"--config.init.weights={parent}",
           "--config.optimizer.freeze=('conv1', 'bn1', 'layer1_*')", f"--workdir={tmp_path}")  # fmt: skip
    start, end = variables(parent, "best")["batch_stats"], variables(tmp_path)["batch_stats"]
    for part in ("bn1", "layer1_0"):
        jax.tree.map(np.testing.assert_array_equal, end[part], start[part])
    assert not np.array_equal(end["layer2_0"]["bn1"]["mean"], start["layer2_0"]["bn1"]["mean"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("--config.init.weights=nothing-here",), "neither a run, nor a file"),
        (("--config.model.width=8",), "its network has stem_width = 4, this one 8; set model.name"),
        (("--config.model.shortcut=A_pool",), "its network has shortcut = 'B', this one 'A_pool'"),
        (
            ("--config.init.head=keep", "--config.data.name=synthetic",
             "--config.data.synthetic_train=64", "--config.data.synthetic_eval=64",
             "--config.data.synthetic_classes=10", "--config.data.image_size=8"),
            "config.init.head = 'keep': the classes of .* are not those of the data",
        ),
        (("--config.optimizer.freeze=('layer7',)",), "'layer7' matches no parameter"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(parent, tmp_path, fields, message):
    line = error_line(*SMALL, f"--config.init.weights={parent}", *fields, f"--workdir={tmp_path}")
    assert re.search(message, line), line


def test_the_weights_of_colour_images_start_a_run_on_grey_ones(tmp_path):
    model = ResNet(stage_sizes=(1, 1), block="basic", width=4, stem="small", num_classes=5)
    made = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    save_torch(made, tmp_path / "colour.safetensors")
    done = launch(*SMALL, f"--config.init.weights={tmp_path / 'colour.safetensors'}",
                  "--config.schedule.base_lr=1e-9", "--config.optimizer.weight_decay=0.0",
                  f"--workdir={tmp_path / 'run'}")  # fmt: skip
    assert "new: fc.bias, fc.kernel" in done.stdout
    kernel = variables(tmp_path / "run")["params"]["conv1"]["kernel"]
    np.testing.assert_allclose(
        kernel, made["params"]["conv1"]["kernel"].sum(2, keepdims=True), atol=1e-5
    )


@pytest.fixture(scope="module")
def of_ten(tmp_path_factory):
    """A file of the tiny recipe's network, and what is in it."""
    model = ResNet(stage_sizes=(1,), block="basic", width=4, stem="small", num_classes=10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    draw = np.random.default_rng(0)
    made = jax.tree.map(lambda leaf: draw.uniform(0.5, 1.5, leaf.shape).astype("f"), shapes)
    file = tmp_path_factory.mktemp("weights") / "ten.safetensors"
    save_torch(made, file)
    return file, made


def begin(**changes):
    return Experiment.for_training(tiny_recipe(**changes))


def test_a_run_without_an_intact_checkpoint_starts_from_its_weights_again(of_ten):
    file, made = of_ten
    first = begin(init__weights=str(file))
    jax.tree.map(np.testing.assert_array_equal, first.create_state().eval_variables, made)
    again = Experiment.for_training(first.config)
    assert again.config == first.config
    jax.tree.map(np.testing.assert_array_equal, again.create_state().eval_variables, made)
    again.config.init.weights = "gone"
    assert again.create_state(for_checkpoint=True).params.keys() == made["params"].keys()
    again.config.init.weights, again.config.init.digest = str(file), "0" * 64
    with pytest.raises(UserError, match=r"their SHA-256 is .* leave the digest out"):
        again.create_state()


def test_frozen_steps_compute_no_gradient_for_what_is_frozen():
    begun = begin(optimizer__freeze=("all but fc",), optimizer__freeze_epochs=1.0)
    state = begun.create_state()
    batch = shard_batch(begun.mesh, begun.train_loader[0])
    frozen, whole = (
        phase.step.lower(state, batch).cost_analysis()["flops"] for phase in begun.phases
    )
    assert frozen < whole / 2


def test_a_prefix_takes_a_part_of_a_file(of_ten, parent, tmp_path):
    file, made = of_ten
    state = {f"backbone.{key}": value for key, value in read_weights(file).items()}
    write_weights(state | {"projector.weight": np.ones((2, 2), "f")}, tmp_path / "m.safetensors")
    weights = {"init__weights": str(tmp_path / "m.safetensors")}
    with pytest.raises(UserError, match=r"prefix='backbone\.', which a recipe has as init\.prefix"):
        begin(**weights)
    begun = begin(**weights, init__prefix="backbone.").create_state()
    jax.tree.map(np.testing.assert_array_equal, begun.eval_variables, made)
    with pytest.raises(UserError, match=r"config\.init\.prefix = 'a\.': .* is no file"):
        begin(init__weights=str(parent), init__prefix="a.")
