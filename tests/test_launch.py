"""What a user meets at the command line, through `launch.py` in a process of its own."""

import json

import fabricate
import pytest
from running import QUICK, devices, error_line, launch, refused, run

from resnet_jax import run as restoring
from resnet_jax.commands.evaluate import Images, evaluate
from resnet_jax.errors import UserError

TINY = (
    "--config.model.width=4",
    "--config.model.stage_sizes=1,1",
    "--config.num_epochs=2",
    "--config.schedule.warmup_epochs=0.5",
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/quickstrat.py"], "did you mean 'quickstart'"),
        ([QUICK, "--config.optimizer.momentun=0.5"], "did you mean 'optimizer.momentum'"),
        ([QUICK, "--config.batch_size=many"], "--config.batch_size=many"),
        ([QUICK, "--config.data.name=idx"], "config.data.dir"),
        ([QUICK, "--config.data.name=mnist", "--config.data.dir=nowhere"], "nowhere"),
        ([QUICK, "--config.batch_size=1443"], "1443"),
        (["--mode=evaluate", "--workdir=nowhere"], "--workdir=nowhere"),
        ([QUICK, "--batch_sise=5"], "batch_sise"),
        (
            [QUICK, "--config.seed=18446744073709551616"],
            "config.seed = 18446744073709551616: must be at most",
        ),
        (["--config", "configs/nope.py"], "--config=configs/nope.py: no such file"),
    ],
)
def test_a_mistake_gets_one_line_and_status_1(arguments, words, tmp_path):
    workdir = [] if "--mode=evaluate" in arguments else [f"--workdir={tmp_path / 'run'}"]
    assert words in refused(*arguments, *workdir)
    assert not (tmp_path / "run").exists()


def test_a_tilde_after_the_equals_sign_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    line = refused(
        QUICK,
        "--config.data.name=idx",
        "--config.data.dir=~/images",
        f"--workdir={tmp_path / 'run'}",
    )
    assert str(tmp_path / "images") in line


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def get_config(:\n", "line 1: SyntaxError"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        (
            "from resnet_jax.config import defaults\n\n\ndef get_config():\n"
            "    config = defaults()\n    config.batch_sise = 3\n    return config\n",
            "line 6: AttributeError",
        ),
        ("x = 1\n", "get_config"),
    ],
)
def test_a_mistake_in_a_recipes_python_is_told_with_file_and_line(tmp_path, body, words):
    (tmp_path / "broken.py").write_text(body)
    line = error_line(f"--config={tmp_path / 'broken.py'}")
    assert f"the recipe cannot be read: {tmp_path / 'broken.py'}" in line
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            [QUICK, "--which=last"],
            "--which is no flag of --mode=train; it is one of --mode=evaluate",
        ),
        (["--mode=evaluate", "--workdir=x", "--sweep=seed=0,1"], "it is one of --mode=train"),
        (
            ["--mode=evaluate", "--workdir=x", "--config.data.eval_split=test"],
            "--config.data.eval_split is no flag of --mode=evaluate",
        ),
        (["--mode=benchmark", QUICK, "--workdir=x"], "--workdir is no flag of --mode=benchmark"),
        (["--mode=evalute", "--workdir=x"], "did you mean 'evaluate'"),
    ],
)
def test_a_flag_of_another_verb_is_refused_and_named(arguments, words):
    assert words in refused(*arguments)


def test_help_has_every_verb_with_its_flags_and_every_field():
    text = launch("--help").stdout
    for words in ("--mode=evaluate", "--which=best", "--sweep=", "--config.schedule.base_lr=0.1"):
        assert words in text


def test_the_package_itself_is_a_command(tmp_path):
    done = run(["-m", "resnet_jax"], QUICK, *TINY, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "best: top1" in done.stdout


def test_an_unwritable_workdir_gets_one_line(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    assert "cannot be written to" in error_line(
        QUICK, *TINY, f"--workdir={tmp_path / 'file' / 'run'}"
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    return workdir, launch(QUICK, *TINY, f"--workdir={workdir}").stdout


def test_training_says_what_it_does_and_leaves_a_complete_run(trained):
    workdir, output = trained
    for name in ("devices", "model", "data", "schedule", "batch", "compiled", "workdir"):
        assert any(line.startswith(name) for line in output.splitlines())
    assert "[epoch 2/2] train loss" in output
    assert json.loads((workdir / "config.json").read_text())["num_epochs"] == 2
    assert (workdir / "classes.txt").read_text().split() == list("0123456789")
    assert json.loads((workdir / "environment.json").read_text())[0]["packages"]["jax"]
    assert list(workdir.glob("events.out.tfevents*"))
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [record["split"] for record in records] == ["train", "test"] * 2
    assert records[0].keys() >= {
        "step",
        "epoch",
        "loss",
        "top1",
        "top5",
        "lr",
        "images_per_sec",
        "data_wait",
    }
    assert records[-1]["examples"] == 355


def test_a_finished_run_says_so_and_changes_nothing(trained):
    workdir, _ = trained
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    assert "is finished" in launch(QUICK, *TINY, f"--workdir={workdir}").stdout
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_another_recipe_in_the_same_workdir_is_refused_field_by_field(trained):
    workdir, _ = trained
    line = error_line(
        QUICK, *TINY, f"--workdir={workdir}", "--config.seed=3", "--config.schedule.base_lr=0.5"
    )
    assert "config.seed is 3, the run has 0" in line
    assert "config.schedule.base_lr is 0.5, the run has 0.4" in line


def test_a_field_is_emptied_by_none(tmp_path):
    overrides = [
        "--config.schedule.base_batch_size=None",
        "--config.data.dir=None",
        "--config.num_epochs=0.05",
    ]
    output = launch(QUICK, *TINY, *overrides, f"--workdir={tmp_path / 'run'}").stdout
    assert "peak rate 0.4" in output
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (kept["schedule"]["base_batch_size"], kept["data"]["dir"]) == (None, None)


@pytest.mark.parametrize(("batch_size", "count"), [(64, 1), (1, 8), (37, 3), (1000, 2)])
def test_evaluation_scores_every_image_once_on_any_batch_size_and_devices(
    trained, batch_size, count
):
    workdir, _ = trained
    done = launch(
        "--mode=evaluate",
        f"--workdir={workdir}",
        "--which=last",
        f"--batch_size={batch_size}",
        **devices(count),
    )
    score = json.loads(done.stdout.splitlines()[-1])
    logged = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert score["split"] == "test"
    assert score["examples"] == logged["examples"] == 355
    assert (score["top1"], score["top5"]) == (logged["top1"], logged["top5"])
    assert score["loss"] == (
        logged["loss"]
        if (batch_size, count) == (64, 1)
        else pytest.approx(logged["loss"], rel=1e-5)
    )


def test_restore_gives_the_network_that_was_scored(trained):
    import jax.numpy as jnp

    import resnet_jax
    from resnet_jax import data

    workdir, _ = trained
    model, variables, description = resnet_jax.restore(workdir, "last")
    source = data.open_source(description.config.data, train=False)
    images, labels = source.take(list(range(len(source))))
    images = (images / 255 - jnp.array(description.config.data.mean)) / jnp.array(
        description.config.data.std
    )
    logits = model.apply(variables, images.astype(jnp.float32), train=False)
    hits = int((logits.argmax(-1) == labels).sum())
    assert hits / len(source) == description.scores["top1"]
    assert len(description.classes) == 10


@pytest.mark.parametrize("which", ["7", "²", "①", "22.0", "-1", "+22", "022", ""])
def test_an_unknown_checkpoint_lists_those_that_exist(trained, which):
    workdir, _ = trained
    checkpoints = restoring.open_checkpoints(workdir, restoring.read_config(workdir))
    with pytest.raises(UserError) as error:
        restoring.pick_step(checkpoints, which)
    assert f"--which={which}: must be best, last or one of 22, 44" in str(error.value)


def test_evaluation_says_which_images_it_scored_and_scores_those_that_are_named(trained):
    workdir, _ = trained
    own = launch("--mode=evaluate", f"--workdir={workdir}").stdout.splitlines()
    assert "scoring 355 images: digits test" in "\n".join(own)
    score = json.loads(own[-1])
    assert (score["data"], score["split"], score["examples"]) == ("digits", "test", 355)
    other = launch("--mode=evaluate", f"--workdir={workdir}", "--split=train[:100]").stdout
    assert "not those that the run scored" in other
    score = json.loads(other.splitlines()[-1])
    assert (score["split"], score["examples"]) == ("train[:100]", 100)


def test_another_data_set_of_the_same_classes_is_scored_and_one_of_others_refused(
    trained, tmp_path
):
    workdir, _ = trained
    fabricate.idx_directory(tmp_path, train=64, test=15)
    flags = ("--mode=evaluate", f"--workdir={workdir}", f"--data_dir={tmp_path}")
    score = json.loads(launch(*flags, "--data_name=idx").stdout.splitlines()[-1])
    assert (score["examples"], score["data_dir"]) == (15, str(tmp_path))
    idx = {"name": "idx", "directory": str(tmp_path)}
    with pytest.raises(UserError, match=r"eval_split.*nope"):
        evaluate(workdir, images=Images("nope", **idx))
    with pytest.raises(UserError, match=r"data\.name = 'nmist'"):
        evaluate(workdir, images=Images(name="nmist"))
    (tmp_path / "classes.txt").write_text("".join(f"{n}\n" for n in "abcdefghij"))
    with pytest.raises(UserError, match="trained on 10 classes that are not the 10"):
        evaluate(workdir, images=Images(**idx))


def test_images_that_have_changed_since_are_not_scored_in_silence(tmp_path):
    fabricate.idx_directory(tmp_path / "data", train=64, test=15)
    flags = ("--config.data.name=idx", f"--config.data.dir={tmp_path / 'data'}")
    launch(QUICK, *TINY, *flags, f"--workdir={tmp_path / 'run'}")
    fabricate.idx_directory(tmp_path / "data", train=64, test=20)
    with pytest.raises(UserError, match=r"15 images became 20.*--accept_data_change"):
        evaluate(tmp_path / "run")
    flags = ("--mode=evaluate", f"--workdir={tmp_path / 'run'}", "--accept_data_change")
    output = launch(*flags).stdout.splitlines()
    assert "not those that the run scored: 15 images became 20" in "\n".join(output)
    assert json.loads(output[-1])["examples"] == 20


def test_a_run_goes_on_with_another_recipe_and_other_images_when_both_are_accepted(tmp_path):
    fabricate.idx_directory(tmp_path / "data", train=64, test=15)
    data = ("--config.data.name=idx", f"--config.data.dir={tmp_path / 'data'}")
    command = (QUICK, *TINY, *data, f"--workdir={tmp_path / 'run'}")
    launch(*command)
    fabricate.idx_directory(tmp_path / "data", train=80, test=15)
    changed = (*command, "--config.num_epochs=3", "--config.schedule.base_lr=0.02")
    assert "--accept_recipe_change=schedule.base_lr" in error_line(*changed)
    accepted = (*changed, "--accept_recipe_change=schedule.base_lr")
    assert "64 images became 80" in error_line(*accepted)
    output = launch(*accepted, "--accept_data_change").stdout
    assert (
        "going on with another recipe: config.schedule.base_lr is 0.02, the run has 0.4" in output
    )
    assert "the training images have changed: 64 images became 80" in output
    assert "[epoch 3/3]" in output


def test_a_deterministic_run_asks_xla_for_it_before_it_starts(tmp_path):
    code = (
        "import os; from resnet_jax.distributed.runtime import prepare_runtime;"
        "prepare_runtime('float32', True); prepare_runtime('float32', True);"
        "import jax; jax.devices(); print(os.environ['XLA_FLAGS'])"
    )
    done = run(["-c", code], XLA_FLAGS="--xla_cpu_enable_fast_math=false")
    asked = "--xla_cpu_enable_fast_math=false --xla_gpu_deterministic_ops=true"
    assert done.stdout.strip() == asked


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path):
    done = launch(QUICK, f"--workdir={tmp_path / 'run'}", expect=1, **devices(7))
    assert (
        "config.batch_size = 64: must be divisible by the 7 devices, for example 63" in done.stderr
    )


def test_a_boundary_past_the_end_is_one_warning_line(tmp_path):
    output = launch(
        QUICK,
        *TINY,
        "--config.schedule.name=step",
        "--config.num_epochs=0.2",
        f"--workdir={tmp_path / 'run'}",
    ).stdout
    assert "schedule.boundaries [30.0, 60.0, 80.0] lie at or past the last epoch" in output


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("train", [QUICK, "--workdir=WORKDIR"]),
        ("train", [QUICK, "--sweep=seed=0,1", "--workdir=WORKDIR"]),
        ("benchmark", [QUICK, "--mode=benchmark"]),
        ("summarize", [QUICK, "--mode=summarize"]),
    ],
)
def test_the_runtime_is_prepared_before_jax_has_found_its_devices(tmp_path, module, arguments):
    arguments = [word.replace("WORKDIR", str(tmp_path)) for word in arguments]
    script = f"""
import sys
from jax._src import xla_bridge
from resnet_jax import __main__, sweep
from resnet_jax.commands import {module}

def prepare_runtime(*_):
    sys.exit(3 if xla_bridge.backends_are_initialized() else 0)

{module}.prepare_runtime = sweep.prepare_runtime = prepare_runtime
__main__.main(["launch.py", *{arguments}])
sys.exit(4)
"""
    assert run(["-c", script]).returncode == 0
