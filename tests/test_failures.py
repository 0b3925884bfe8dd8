"""What a run does when the disk, the loss or a path fails it, through `train` and the loop."""

import json
import os
import re
import subprocess

import fabricate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import tiny_recipe

from resnet_jax import Classifier, data, run
from resnet_jax.__main__ import parse
from resnet_jax.commands.train import Accepted, train
from resnet_jax.errors import UserError
from resnet_jax.initial import read_weights_of
from resnet_jax.training import schedule
from resnet_jax.training.checkpointing import checksums
from resnet_jax.training.checkpointing.checkpoints import Checkpoints
from resnet_jax.training.loop import NotFinite
from resnet_jax.training.reporting import logbook, trace
from resnet_jax.training.reporting.reporter import Reporter


def settings(**changes):
    return tiny_recipe(**{"checkpoint__every_epochs": 0.5, **changes})


def saved_steps(workdir):
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )


def fail_saves(monkeypatch, which):
    """Makes the saves whose numbers, from 1, `which` holds true for find a full disk."""
    write, count = checksums.write_checksums, 0

    def sometimes_full(directory, **keywords):
        nonlocal count
        count += 1
        if which(count):
            raise OSError(28, os.strerror(28))
        write(directory, **keywords)

    monkeypatch.setattr(checksums, "write_checksums", sometimes_full)


def test_training_survives_a_failed_save_says_so_and_saves_again(tmp_path, monkeypatch, capsys):
    fail_saves(monkeypatch, lambda count: count == 2)
    train(settings(), str(tmp_path))
    said = capsys.readouterr().out
    assert "saving checkpoint 22" in said
    assert "No space left on device" in said
    assert said.index("saving checkpoint 22") < said.index("[epoch 2/2]")
    assert saved_steps(tmp_path)[-2:] == [33, 44]


def test_a_failed_last_save_is_an_error_and_the_same_command_mends_it(
    tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        fail_saves(patch, lambda count: count >= 4)
        with pytest.raises(UserError, match="the last checkpoint could not be written"):
            train(settings(), str(tmp_path))
    assert saved_steps(tmp_path)[-1] == 33
    train(settings(), str(tmp_path))
    assert "going on from step 33" in capsys.readouterr().out
    assert saved_steps(tmp_path)[-1] == 44


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # orbax's own, after the failure
def test_a_full_disk_stops_neither_the_training_nor_what_was_saved(tmp_path, capsys):
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a small tmpfs here")
    filler = place / "filler"
    log = Reporter.log
    save = Checkpoints.save

    def fill_up(reporter, progress):
        if progress.step == 22:
            filler.write_bytes(bytes(os.statvfs(place).f_bavail * os.statvfs(place).f_bsize))
        log(reporter, progress)

    def make_room(checkpoints, state, notes):
        checkpoints.wait()
        if notes.step == 33:
            filler.unlink()
        save(checkpoints, state, notes)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Reporter, "log", fill_up)
            patch.setattr(Checkpoints, "save", make_room)
            train(settings(), str(place / "run"))
        said = capsys.readouterr().out
        assert "saving checkpoint 22" in said
        assert saved_steps(place / "run")[-2:] == [33, 44]
        lines = [
            json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()
        ]
        assert [(line["step"], line["split"]) for line in lines] == [
            (step, split) for step in (22, 44) for split in ("train", "test")
        ]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        schedule, "make_schedule", lambda *_: lambda step: jnp.where(step < 25, 0.01, jnp.inf)
    )
    with pytest.raises(NotFinite) as caught:
        train(settings(model__norm="none"), str(tmp_path))
    message = str(caught.value)
    assert message.startswith("loss or gradients are not finite at step 27 ")
    assert "go on from checkpoint 22 with a lower rate" in message
    assert "--config.schedule.base_lr=LOWER --accept_recipe_change=schedule.base_lr" in message
    assert saved_steps(tmp_path) == [11, 22]
    for step in (11, 22):
        variables = run.restore(tmp_path, str(step))[1]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables["params"]))


def test_a_run_that_diverged_goes_on_from_its_last_checkpoint_with_a_lower_rate(
    tmp_path, monkeypatch, capsys
):
    """In the same workdir; the log keeps both parts, and the starts say what was changed."""
    shared = {"model__norm": "none", "schedule__base_batch_size": None, "log_every_steps": 1}
    high = settings(schedule__base_lr=0.01, **shared)
    low = settings(schedule__base_lr=1e-4, **shared)
    with monkeypatch.context() as patch:
        patch.setattr(
            schedule, "make_schedule", lambda *_: lambda step: jnp.where(step < 25, 0.01, jnp.inf)
        )
        with pytest.raises(NotFinite, match="go on from checkpoint 22"):
            train(high, str(tmp_path))
    with pytest.raises(UserError, match=r"--accept_recipe_change=schedule\.base_lr"):
        train(low, str(tmp_path))
    train(low, str(tmp_path), accepted=Accepted(("schedule.base_lr",)))
    said = capsys.readouterr().out
    assert "going on from step 22 " in said
    assert "another recipe: config.schedule.base_lr is 0.0001, the run has 0.01" in said
    rates = {record["step"]: record["lr"] for record in logbook.read(tmp_path) if "lr" in record}
    assert list(rates) == list(range(1, 45))
    assert [rates[22], rates[23]] == pytest.approx([0.01, 1e-4])
    (change,) = json.loads((tmp_path / "environment.json").read_text())[-1]["changes"]
    assert "config.schedule.base_lr is 0.0001" in change
    assert run.read_config(tmp_path).schedule.base_lr == 1e-4
    train(low, str(tmp_path))
    assert "is finished after 44 steps" in capsys.readouterr().out


def test_a_finished_run_says_its_best_and_not_its_last(tmp_path, capsys):
    train(settings(schedule__base_lr=0.5), str(tmp_path))
    best = min(
        (record for record in logbook.read(tmp_path) if record["split"] == "test"),
        key=lambda record: (-record["top1"], record["loss"], -record["step"]),
    )
    capsys.readouterr()
    train(settings(schedule__base_lr=0.5), str(tmp_path))
    said = capsys.readouterr().out
    assert "is finished after 44 steps; nothing to do; best: top1" in said
    assert f"best: top1 {best['top1']:.4f} top5 {best['top5']:.4f}" in said
    assert f"at step {best['step']}" in said


def test_minutes_between_checkpoints_add_some_between_epochs(tmp_path):
    train(
        settings(checkpoint__every_epochs=2.0, checkpoint__every_minutes=1e-9, num_epochs=0.3),
        str(tmp_path),
    )
    assert saved_steps(tmp_path) == [4, 5, 6, 7][-len(saved_steps(tmp_path)) :]
    assert len(saved_steps(tmp_path)) >= 3


def test_a_profile_leaves_a_trace_of_its_steps(tmp_path):
    train(settings(num_epochs=0.3), str(tmp_path), profile=trace.parse("2:4"))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_process_that_records_no_trace_pauses_after_its_steps_all_the_same(tmp_path):
    loud, silent = (trace.Trace(tmp_path / name, range(2, 4), silent=name == "s") for name in "ls")
    for step in range(6):
        for one in (silent, loud):
            one.before(step)
        assert silent.is_over(step) == loud.is_over(step) == (step == 3)
        if step == 3:
            silent.stop()
            loud.stop()
    assert (tmp_path / "l" / "profile").exists()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("text", ["5", "5:", "5:5", "a:b", "-1:3"])
def test_a_profile_that_is_no_range_is_refused(text):
    with pytest.raises(UserError, match="must be start:stop"):
        trace.parse(text)


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_bucket_whose_backend_is_missing_names_the_package(scheme, package):
    with pytest.raises(UserError, match=f"--workdir={scheme}://bucket/run.*pip install {package}"):
        train(settings(), f"{scheme}://bucket/run")
    with pytest.raises(UserError, match=f"--workdir={scheme}://bucket/run.*pip install {package}"):
        run.read_config(f"{scheme}://bucket/run")
    with pytest.raises(UserError, match=f"--workdir={scheme}://bucket/run.*pip install {package}"):
        Classifier.from_run(f"{scheme}://bucket/run")
    field = rf"config\.init\.weights={scheme}://bucket/run.*pip install {package}"
    with pytest.raises(UserError, match=field):
        read_weights_of(f"{scheme}://bucket/run", None, 3, field="config.init.weights")


def test_data_in_a_bucket_is_refused_at_once():
    with pytest.raises(UserError, match=r"config\.data\.dir.*gs://bucket/data"):
        settings(data__name="imagenet2012", data__dir="gs://bucket/data")


def test_images_that_are_not_square_stay_so_on_a_resume_and_in_evaluation(tmp_path, capsys):
    fabricate.idx_directory(tmp_path / "data", train=64, test=15, size=6, width=9)
    config = settings(data__name="idx", data__dir=str(tmp_path / "data"), num_epochs=1)
    train(config, str(tmp_path / "run"))
    config.num_epochs = 2
    train(config, str(tmp_path / "run"))
    assert capsys.readouterr().out.count("images of 6×9×1") == 2
    recipe_kept = run.read_config(tmp_path / "run")
    assert data.open_source(recipe_kept.data, train=False).image_shape == (6, 9, 1)
    refusal = r"was trained on images of 6x9x1, and pictures are made"
    with pytest.raises(UserError, match=refusal):
        Classifier.from_run(tmp_path / "run")
    (tmp_path / "a.png").write_bytes(b"")
    asked = ["--mode=predict", f"--workdir={tmp_path / 'run'}", str(tmp_path / "a.png")]
    verb, arguments = parse(["launch.py", *asked])
    with pytest.raises(UserError, match=refusal):
        verb.run(arguments)
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())
    for damaged in ([5], [None, 1, 1], 7, "6x9"):
        starts[-1]["image_shape"] = damaged
        (tmp_path / "run" / "environment.json").write_text(json.dumps(starts))
        run.check_takes_pictures(tmp_path / "run")


@pytest.mark.parametrize(
    ("classes", "train_images", "words"),
    [
        ("zero one two three four five six seven eight ten", 64, "which are not the 10 (zero, one"),
        (None, 80, "the training images (idx train) have changed since the run began: 64 images"),
    ],
)
def test_a_resume_on_other_data_is_refused(tmp_path, classes, train_images, words):
    fabricate.idx_directory(tmp_path / "data", train=64, test=15)
    config = settings(data__name="idx", data__dir=str(tmp_path / "data"), num_epochs=1)
    train(config, str(tmp_path / "run"))
    config.num_epochs = 2
    fabricate.idx_directory(tmp_path / "data", train=train_images, test=15)
    if classes:
        (tmp_path / "data" / "classes.txt").write_text(classes.replace(" ", "\n") + "\n")
    with pytest.raises(UserError, match=re.escape(words)):
        train(config, str(tmp_path / "run"))


def test_scoring_what_is_trained_on_is_said(tmp_path, capsys):
    train(settings(data__eval_split="train[90%:]", num_epochs=0.1), str(tmp_path))
    assert "train[90%:] is scored and train trained on" in capsys.readouterr().out
