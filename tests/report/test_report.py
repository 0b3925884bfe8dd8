"""A page on a run: whole, without its data, of a killed run, of several runs."""

import base64
import dataclasses
import io
import json
import re
import shutil
import sys

import fabricate
import jax
import numpy as np
import pytest
from PIL import Image
from running import ROOT, tiny_recipe

from resnet_jax import UserError, run
from resnet_jax import config as config_lib
from resnet_jax.commands.report import report
from resnet_jax.commands.train import train
from resnet_jax.report import answers as answer_parts
from resnet_jax.report import comparison, learning, network, page, recipe, single
from resnet_jax.report.asking import ask, grad_cam, head
from resnet_jax.report.parts import Card, Figure, Gallery, Page, Section, Table
from resnet_jax.report.record import Record
from resnet_jax.training.answers import Answers
from resnet_jax.training.reporting.display import Display

SILENT = Display(silent=True)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "idx"
    fabricate.idx_directory(directory, train=96, test=70)
    return directory


@pytest.fixture(scope="module")
def workdir(data_dir, tmp_path_factory):
    """A run of two epochs of random images, which its network cannot get right."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    changes = {"data__name": "idx", "data__dir": str(data_dir), "batch_size": 32}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["launch.py", "--config=configs/quickstart.py"])
        train(tiny_recipe(log_every_steps=1, keep_thumbnails=16, **changes), str(path))
    return path


@pytest.fixture(scope="module")
def asked(workdir):
    return ask(str(workdir), 6, None, SILENT)


@pytest.fixture
def lost(workdir, tmp_path):
    """The same run on another machine, where its data is not."""
    copy = shutil.copytree(workdir, tmp_path / "lost")
    config = json.loads((copy / "config.json").read_text())
    config["data"]["dir"] = str(tmp_path / "nowhere")
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def parts_of(made, kind):
    return {
        part.title: part
        for section in made.sections
        for part in section.parts
        if isinstance(part, kind)
    }


def test_a_page_has_every_part_and_needs_nothing_from_elsewhere(workdir, tmp_path, capsys):
    path = report([str(workdir)], output_dir=str(tmp_path / "page"))
    text = path.read_text()
    assert "written: " in capsys.readouterr().out
    assert path.stat().st_size < 8 << 20
    assert "Not here." not in text
    assert "default-src 'none'" in text
    assert not re.search(r"<script|(src|href)=\"(?!data:|#)|url\(|@import", text)
    inlined = [base64.b64decode(code) for code in re.findall(r"image/png;base64,([^\"]+)", text)]
    beside = [file.read_bytes() for file in (path.parent / "report").iterdir()]
    assert sorted(inlined) == sorted(beside)
    for png in inlined:
        Image.open(io.BytesIO(png)).verify()
    for title in (
        "Loss", "Accuracy", "Schedule", "Throughput", "Waiting for data", "Step time", "Goodput",
        "Confusion matrix", "Accuracy of each class", "Reliability", "Most confident mistakes",
        "Least confident correct predictions", "Where it looks", "First filters", "Map of the features",
        "The recipe, where it is not the default", "Starts",
    ):  # fmt: skip
        assert f">{title}<" in text


def test_names_from_outside_are_text_in_a_page():
    table = Table("<i>", "", ("<td>",), [("<script>alert(1)</script>", '"&')])
    text = page.render(Page("<b>", "", {"<u>": "<s>"}, ("<p>",), (Section("x", "<h2>", (table,)),)))
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not any(f"{tag} " in text or f">{tag}<" in text for tag in ("<b>", "<u>", "<s>", "<i>"))


def test_without_its_data_a_run_is_asked_about_the_images_that_it_kept(lost, asked):
    kept = ask(str(lost), 6, None, SILENT)
    assert "nowhere" in kept.why_gone
    assert not kept.scores
    places, predictions = kept.answers.places[0], kept.answers.predictions[0]
    assert (len(places), places[0], places[-1]) == (16, 0, 69)
    whole = [np.concatenate(column) for column in (asked.answers.predictions, asked.answers.labels)]
    assert predictions.tolist() == whole[0][places].tolist()
    assert kept.answers.labels[0].tolist() == whole[1][places].tolist()
    np.testing.assert_allclose(
        kept.answers.confidences[0], np.concatenate(asked.answers.confidences)[places], rtol=1e-5
    )
    for part in answer_parts.figures(kept):
        assert part.png is None
        assert "not there" in part.why
    mistakes, _ = answer_parts.galleries(kept)
    wrong = int((predictions != kept.answers.labels[0]).sum())
    assert len(mistakes.cards) == min(12, wrong)
    assert all(isinstance(part, Gallery) or part.png for part in network.parts(kept))
    notes = single.describe(Record.read(str(lost)), kept).notes
    assert any("nowhere" in note and "Shown are 16 that the run kept" in note for note in notes)


def test_another_place_of_the_data_is_named_on_the_command_line(lost, data_dir):
    assert ask(str(lost), 6, str(data_dir), SILENT).why_gone is None


def test_data_that_has_changed_is_not_taken_for_the_run_s(lost, tmp_path):
    fabricate.idx_directory(tmp_path / "other", train=96, test=69)
    assert "have changed" in ask(str(lost), 6, str(tmp_path / "other"), SILENT).why_gone


def test_without_data_and_kept_images_every_missing_part_says_why(lost):
    (lost / "thumbnails.npz").write_bytes(b"PK, but cut short")
    made = single.describe(Record.read(str(lost)), ask(str(lost), 6, None, SILENT))
    missing = [part for part in parts_of(made, (Figure, Gallery)).values() if part.why]
    assert len(missing) == 7
    assert all("not there" in part.why for part in missing)
    assert "First filters" not in {part.title for part in missing}
    assert page.render(made).count("Not here.") == 7


def test_grad_cam_and_the_head_are_those_of_the_network(asked, workdir):
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), np.uint8)
    look = asked.look(images)
    fields = run.read_config(workdir).data
    mean, std = np.array(fields.mean), np.array(fields.std)
    shown = (images / 255 - mean) / std
    logits = asked.model.apply(asked.variables, shown.astype(np.float32), train=False)
    np.testing.assert_allclose(look.answers, jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)
    last = np.random.default_rng(2).normal(size=(3, 2, 2, 4)).astype(np.float32)
    params = {"fc": {"kernel": np.eye(4, 6, dtype=np.float32) * 2, "bias": np.zeros(6, np.float32)}}
    best = np.asarray(head(params, last)[0]).argmax(-1)
    # With a mean and one layer the gradient is the layer's row: the class activation map.
    weights = params["fc"]["kernel"][:, best].T / 4
    expected = np.maximum((last * weights[:, None, None]).sum(-1), 0)
    np.testing.assert_allclose(grad_cam(params, last), expected, rtol=1e-5, atol=1e-6)


def test_the_map_of_the_features_is_that_of_principal_components():
    decomposition = pytest.importorskip("sklearn.decomposition")
    features = np.random.default_rng(0).normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]
    points, shares = network.principal_components(features.astype(np.float32))
    reference = decomposition.PCA(2).fit(features)
    np.testing.assert_allclose(np.abs(points), np.abs(reference.transform(features)), rtol=1e-4)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, rtol=1e-4)


def test_of_a_thousand_classes_the_worst_pairs_are_shown():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 1000, 5000)
    predictions = np.where(draw.uniform(size=5000) < 0.7, labels, draw.integers(0, 1000, 5000))
    labels[:40], predictions[:40] = 7, 900
    answers = Answers([labels], [predictions], [draw.uniform(size=5000)], [np.arange(5000)])
    first, *others = answers.mistakes()
    assert first[:2] == (7, 900)
    assert len(others) > 29
    assert all(row != column and count for row, column, count in others)
    assert first[2] == (labels * 1000 + predictions == 7900).sum()
    made = answer_parts.all_figures(answers, tuple(f"c{n}" for n in range(1000)))
    assert made[0].title == "The 30 worst confusions of 1,000 classes"
    assert all(part.png for part in made[:3])
    assert len(made[3].rows) == 30


@pytest.fixture
def killed(workdir, tmp_path):
    """The run as a kill left it in its second epoch: half a line, no end noted."""
    copy = shutil.copytree(workdir, tmp_path / "killed")
    shutil.rmtree(copy / "checkpoints" / "6")
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    lines = [line for line in lines if json.loads(line)["step"] < 5]
    (copy / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 5, "epo']))
    starts = json.loads((copy / "environment.json").read_text())
    del starts[-1]["goodput"]
    (copy / "environment.json").write_text(json.dumps(starts))
    return copy


def test_a_run_that_was_killed_tells_how_far_it_came(killed):
    record = Record.read(str(killed))
    assert not record.is_finished
    assert record.status == "not finished: the log ends at step 4 of 6, epoch 1.33 of 2"
    loss, accuracy, schedule = learning.figures(record)
    assert loss.png
    assert accuracy.png
    assert schedule.png
    assert len(record.epochs) == 2
    made = single.describe(record, ask(str(killed), 3, None, SILENT))
    assert "killed" in parts_of(made, Figure)["Goodput"].why
    assert made.notes[0].startswith("The run: not finished")


@pytest.fixture
def sweep(workdir, killed, tmp_path):
    directory = tmp_path / "sweep"
    for name, seed, rate, source in (
        ("a0", 0, 0.1, workdir),
        ("a1", 1, 0.1, workdir),
        ("b0", 0, 0.4, killed),
    ):
        shutil.copytree(source, directory / name)
        config = json.loads((directory / name / "config.json").read_text())
        config["seed"], config["schedule"]["base_lr"] = seed, rate
        (directory / name / "config.json").write_text(json.dumps(config))
    return directory


def test_the_runs_of_a_sweep_stand_side_by_side(sweep):
    (sweep.parent / "again").symlink_to(sweep / "a1")
    path = report([str(sweep), str(sweep / "b0"), str(sweep.parent / "again")], output_dir=sweep)
    assert path == sweep / "report.html"
    assert "<h1>3 runs</h1>" in path.read_text()
    assert {file.stem for file in (sweep / "report").iterdir()} == {
        "top1_compared",
        "loss_compared",
    }
    made = comparison.compare([Record.read(str(sweep / name)) for name in ("a0", "a1", "b0")])
    tables = parts_of(made, Table)
    assert [row[0] for row in tables["Each run"].rows] == ["a0", "a1", "b0"]
    assert tables["Each run"].rows[2][-1].startswith("not finished")
    (seeds,) = tables["Over seeds"].rows
    assert seeds[:2] == ("schedule.base_lr=0.1", 2)
    assert tables["Differences of the recipes"].rows == [
        ("schedule.base_lr", "0.1", "0.1", "0.4"), ("seed", "0", "1", "0")
    ]  # fmt: skip
    assert made.facts["finished"] == "2"


def changed(record, name, fields, **more):
    config = config_lib.from_json(config_lib.to_json(record.config))
    for field, value in fields.items():
        config_lib.set_field(config, field, value)
    return dataclasses.replace(record, name=name, config=config, **more)


def test_seeds_of_a_recipe_are_averaged_however_many_fields_differ(workdir):
    record = Record.read(str(workdir))
    other = {"schedule.base_lr": 0.4, "data.flip": True, "loss.label_smoothing": 0.2}
    other |= {"optimizer.weight_decay": 0.3}
    made = [
        changed(record, f"{name}{seed}", fields | {"seed": seed, "data.dir": f"{seed}"})
        for name, fields in (("a", {}), ("b", other))
        for seed in range(3)
    ]
    rows = parts_of(comparison.compare(made), Table)["Over seeds"].rows
    assert [row[:2] for row in rows] == [("as a0", 3), ("as b0", 3)]


def test_runs_that_differ_in_a_field_of_several_numbers_are_compared(workdir):
    record = Record.read(str(workdir))
    made = [
        changed(record, f"{scale}{seed}", {"data.crop_scale": (scale, 1.0), "seed": seed})
        for scale in (0.25, 0.5)
        for seed in range(2)
    ]
    rows = parts_of(comparison.compare(made), Table)["Over seeds"].rows
    assert [row[0] for row in rows] == [f"data.crop_scale=({scale}, 1.0)" for scale in (0.25, 0.5)]


def test_runs_with_other_augmentations_are_no_seeds_of_one_recipe(workdir):
    record = Record.read(str(workdir))
    made = [
        changed(record, "a", {"data.flip": True}),
        changed(record, "b", {"data.flip": False}),
        changed(record, "c", {"data.flip": False, "schedule.base_lr": 0.4}),
    ]
    assert not parts_of(comparison.compare(made), Table)["Over seeds"].rows


def test_an_evaluation_split_may_have_the_name_of_the_training_split(workdir):
    record = Record.read(str(workdir))
    lines = [line | {"split": "train"} for line in record.lines]
    same = dataclasses.replace(record, lines=lines)
    assert same.epochs == record.epochs
    assert len(same.evaluations) == len(record.evaluations) == 2


def test_the_best_evaluation_is_that_of_the_best_checkpoint(workdir):
    scores = [(0.5, 1.0), (0.7, 0.9), (0.7, 0.8), (0.7, 0.8), (0.6, 0.1)]
    lines = [
        {"step": step, "epoch": step, "split": "test", "top1": top1, "loss": loss}
        for step, (top1, loss) in enumerate(scores, 1)
    ]
    record = dataclasses.replace(Record.read(str(workdir)), lines=lines)
    assert record.best()["step"] == 4
    by_loss = changed(record, "", {"checkpoint.best_metric": "loss"})
    assert by_loss.best()["step"] == 5


def test_an_epoch_has_the_steps_of_its_images_and_not_of_a_rounded_log(workdir):
    record = Record.read(str(workdir))
    lines, starts = [{"step": 100, "epoch": 0.02, "split": "train"}], [{"train_images": 160_140}]
    assert dataclasses.replace(record, lines=lines, starts=starts).steps_per_epoch == 5004
    assert dataclasses.replace(record, lines=lines, starts=[]).steps_per_epoch == 5000


def test_the_pictures_of_an_earlier_page_are_removed_and_no_others(tmp_path):
    (tmp_path / "report").mkdir()
    for name in ("loss.png", "hit_03.png", "mine.png", "hit_mine.png"):
        (tmp_path / "report" / name).write_bytes(b"old")
    card = Card(b"new", (), is_right=True)
    parts = (Figure("loss", "", "", why="none"), Gallery("hit", "", "", (card,)))
    page.write(Page("", "", {}, (), (Section("x", "", parts),)), tmp_path)
    left = {file.name for file in (tmp_path / "report").iterdir()}
    assert left == {"hit_01.png", "mine.png", "hit_mine.png"}


def test_a_page_of_several_runs_lies_where_all_of_them_are(sweep):
    path = report([str(sweep / "a0"), str(sweep / "b0")])
    assert path == sweep / "report.html"
    with pytest.raises(UserError, match="--which is for one run, not for 2"):
        report([str(sweep / "a0"), str(sweep / "b0")], which="last")


def test_a_recipe_is_compared_with_the_file_that_it_was_started_from(workdir):
    def differences(*command):
        record = Record.read(str(workdir))
        record.starts[-1]["command"] = ["launch.py", *command]
        return recipe.tables(record)[0]

    table = differences("--config=configs/quickstart.py")
    assert table.title == "Differences from configs/quickstart.py"
    rows = {name: values for name, *values in table.rows}
    assert rows["num_epochs"] == ["20.0", "2.0"]
    assert rows["data.name"] == ["digits", "idx"]
    assert "seed" not in rows
    assert differences("--config", "quickstart").rows == table.rows
    assert "no recipe none.py" in differences("--config=none.py").why
    assert "no recipe README.md" in differences("--config=README.md").why
    assert "not noted" in differences("--seed=1").why


def test_a_recipe_of_one_s_own_is_not_taken_for_a_shipped_one(workdir, tmp_path):
    own = tmp_path / "configs" / "quickstart.py"
    own.parent.mkdir()
    shutil.copy(ROOT / "configs" / "quickstart.py", own)
    record = dataclasses.replace(Record.read(str(workdir)), starts=[{"command": ["", "--config"]}])
    record.starts[0]["command"].append(str(own))
    assert recipe.tables(record)[0].title == f"Differences from {own.as_posix()}"


def test_no_program_that_lies_in_a_workdir_is_run(workdir, tmp_path):
    source = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef get_config(): ...\n"
    (tmp_path / "received").mkdir()
    (tmp_path / "received" / "theirs.py").write_text(source)
    (tmp_path / "link.py").symlink_to(tmp_path / "received" / "theirs.py")
    for path in ("received/theirs.py", "received/../received/theirs.py", "link.py"):
        record = dataclasses.replace(
            Record.read(str(workdir)),
            workdir=str(tmp_path / "received"),
            starts=[{"command": ["launch.py", f"--config={tmp_path / path}"]}],
        )
        assert "lies in the workdir" in recipe.tables(record)[0].why
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        ("/a/launch.py", "python launch.py"),
        ("/a/bin/resnet-jax", "resnet-jax"),
        ("/a/resnet_jax/__main__.py", "python -m resnet_jax"),
    ],
)
def test_the_command_is_shown_as_it_was_typed(workdir, program, typed):
    starts = [{"command": [program, "--config=quickstart"]}]
    record = dataclasses.replace(Record.read(str(workdir)), starts=starts)
    assert recipe.command(record) == f"{typed} --config=quickstart"


def test_what_is_no_run_or_has_no_checkpoint_is_said_in_a_line(workdir, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"holds no run \(no config\.json\) and no sweep"):
        report([str(tmp_path)])
    bare = shutil.copytree(workdir, tmp_path / "bare")
    shutil.rmtree(bare / "checkpoints")
    with pytest.raises(UserError, match="holds no checkpoint yet: train first"):
        report([str(bare)])
    with pytest.raises(UserError, match="--output_dir=gs://b: must be a local directory"):
        report([str(workdir)], output_dir="gs://b")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written to \(.*\); name another"):
        report([str(workdir)], output_dir=str(tmp_path / "file"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match=r"jinja2.*pip install 'flax-resnet\[report\]'"):
        report([str(workdir)])
