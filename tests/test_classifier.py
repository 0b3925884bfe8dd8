"""A trained network answers on pictures, in Python and on the command line."""

import csv
import io
import json
import os

import fabricate
import jax
import numpy as np
import pytest
from PIL import Image
from running import ROOT, devices, error_line, launch, tiny_recipe

import resnet_jax
from resnet_jax import Classifier, UserError, save_torch
from resnet_jax.__main__ import parse
from resnet_jax.commands.predict import _words, predict
from resnet_jax.commands.train import train
from resnet_jax.data.sources import pictures

PER_CLASS = {"train": 24, "val": 13}


def picture(colour, seed):
    """Returns a picture whose class is hard to tell, so that not all answers are right."""
    pixels = np.random.default_rng(seed).integers(0, 200, (20, 26, 3), np.uint8)
    pixels[..., colour] += 12
    return fabricate.encoded(pixels, "PNG")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a folder of two classes; its val split is at run / "pictures" / "val"."""
    root = tmp_path_factory.mktemp("run")
    tree = {
        split: {
            name: [picture(colour, 1000 * colour + start + i) for i in range(count)]
            for colour, name in enumerate(("cat", "dog"))
        }
        for start, (split, count) in zip((0, 500), PER_CLASS.items(), strict=True)
    }
    fabricate.folder_tree(root / "pictures", tree)
    config = tiny_recipe(
        batch_size=16, data__name="folder", data__dir=str(root / "pictures"), data__image_size=12
    )
    train(config, str(root / "work"))
    return root


@pytest.fixture(scope="module")
def classifier(run):
    return Classifier.from_run(run / "work")


def val_files(run):
    return sorted((run / "pictures" / "val").glob("*/*.jpg"))


def right(paths, names):
    return sum(path.parent.name == name for path, name in zip(paths, names, strict=True))


def test_predicting_agrees_with_the_run_s_own_score_to_the_image(run, classifier):
    paths = val_files(run)
    answers = classifier.predict(paths)
    score = classifier.description.scores["top1"]
    assert 0 < right(paths, [answer.classes[0] for answer in answers]) < len(paths)
    assert right(paths, [answer.classes[0] for answer in answers]) == score * len(paths)


def test_probabilities_are_those_of_the_restored_network(run, classifier):
    paths = val_files(run)[:3]
    model, variables, description = resnet_jax.restore(run / "work")
    images = classifier.preprocess(paths)
    np.testing.assert_array_equal(images, resnet_jax.preprocess(paths, description))
    expected = jax.nn.softmax(model.apply(variables, images))
    for answer, row in zip(classifier.predict(paths), np.asarray(expected), strict=True):
        by_name = dict(zip(answer.classes, answer.probabilities, strict=True))
        np.testing.assert_allclose([by_name["cat"], by_name["dog"]], row, atol=1e-5)
        assert answer.probabilities[0] >= answer.probabilities[1]
    pooled = model.clone(num_classes=0).apply(variables, images)
    np.testing.assert_allclose(classifier.features(paths), pooled, rtol=1e-4, atol=1e-5)
    assert classifier.features([]).shape == (0, pooled.shape[1])


def test_paths_pictures_and_arrays_have_the_same_answer(run, classifier):
    path = val_files(run)[0]
    image = Image.open(path)
    mixed = classifier.predict([path, str(path), image, np.asarray(image)])
    assert mixed == [mixed[0]] * 4
    (alone,) = classifier.predict(path, top=1)
    assert alone.classes == mixed[0].classes[:1]
    assert classifier.predict([]) == []
    stacked = classifier.predict(np.stack([np.asarray(image)] * 2))
    assert stacked[1].classes == mixed[0].classes
    with pytest.raises(UserError, match="image 0: an array of float32"):
        classifier.predict(np.zeros((8, 8, 3), np.float32))


def test_a_program_is_compiled_for_each_size_of_batch_alone(run):
    network = Classifier.from_run(run / "work", batch_size=16)
    paths = val_files(run)
    for count in (26, 20, 16, 13, 8, 3):
        assert len(network.predict(paths[:count])) == count
    assert network._logits_step._cache_size() == 2  # 16, and 8 for the eight devices


def test_an_unreadable_file_stops_or_is_left_out(run, classifier, tmp_path):
    good, bad = val_files(run)[0], tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"bad\.jpg: no readable image"):
        classifier.predict([good, bad])
    answers = classifier.predict([bad, good, tmp_path / "absent.jpg"], on_error="skip")
    assert [answer is None for answer in answers] == [True, False, True]
    assert classifier.predict([bad], on_error="skip") == [None]
    with pytest.raises(UserError, match=r"absent\.jpg: no such file; give another, or leave it"):
        classifier.predict([good, tmp_path / "absent.jpg"])
    with pytest.raises(UserError, match=r"absent\.jpg: no such file; give another, or leave it"):
        classifier.preprocess(tmp_path / "absent.jpg")
    with pytest.raises(UserError, match="on_error = 'ignore': must be one of stop, skip"):
        classifier.predict([good], on_error="ignore")


def test_the_command_line_gives_the_same_answers_on_one_device(run, classifier):
    """Those of this process are from eight."""
    paths = val_files(run)
    done = launch(
        "--mode=predict",
        f"--workdir={run / 'work'}",
        run / "pictures" / "val" / "cat",
        "--format=csv",
        str(run / "pictures" / "val" / "dog" / "*.jpg"),
        **devices(1),
    )
    header, *rows = csv.reader(io.StringIO(done.stdout))
    assert header == ["file", "class_1", "probability_1", "class_2", "probability_2"]
    assert [row[0] for row in rows] == [str(path) for path in paths]
    answers = classifier.predict(paths)
    assert [row[1] for row in rows] == [answer.classes[0] for answer in answers]
    np.testing.assert_allclose(
        [float(row[2]) for row in rows], [answer.probabilities[0] for answer in answers], atol=1e-5
    )


def test_what_is_no_picture_is_named_counted_and_in_the_exit_status(run, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "broken.PNG").write_bytes(picture(0, 1)[:100])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "good.png").write_bytes(picture(0, 1))
    done = launch(
        "--mode=predict", f"--workdir={run / 'work'}", "--format=jsonl", tmp_path, expect=1
    )
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert answer["file"] == str(tmp_path / "deep" / "good.png")
    assert {pair["class"] for pair in answer["top"]} == {"cat", "dog"}
    assert f"passed over in {tmp_path}: 1 files without a picture's suffix" in done.stderr
    assert f"skipped {tmp_path / 'broken.PNG'}: no readable image" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 1 of 2 files are no readable pictures and were skipped: ")


def test_weights_of_a_file_answer_with_the_names_that_are_given(run, tmp_path):
    model = resnet_jax.create_model("cifar_resnet20", num_classes=2)
    variables = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    file, path = tmp_path / "weights.safetensors", val_files(run)[0]
    save_torch(variables, file)
    description = Classifier.from_pretrained(file, model="cifar_resnet20").description
    assert (description.classes, description.eval_size) == (("0", "1"), 224)
    (tmp_path / "names.txt").write_text("cow\npig\n")
    flags = (
        "--mode=predict",
        f"--weights={file}",
        "--model=cifar_resnet20",
        "--eval_size=32",
        path,
    )
    said = launch(*flags, f"--classes={tmp_path / 'names.txt'}").stdout
    assert said.startswith(str(path))
    assert "cow" in said
    assert "pig" in said
    with pytest.raises(UserError, match="does not tell its network; give model="):
        Classifier.from_pretrained(file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--mode=predict needs pictures"),
        (["empty"], r"empty: holds no pictures \(.jpg"),
        (["nowhere.jpg"], r"nowhere\.jpg: no such file"),
        (["*.gif"], r"\*\.gif: nothing matches this pattern"),
        (["-"], "standard input names no file"),
        (["a.jpg"], "give either --workdir"),
        (["a.jpg", "--workdir=x", "--weights=y"], "give either --workdir"),
        (["a.jpg", "--workdir=x"], "--workdir=x holds no run"),
        (["a.jpg", "--weights=x", "--which=last"], "--which=last has no effect"),
        (["a.jpg", "--workdir=tests/workdir", "--classes=x"], "--classes=x has no effect"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    words = [word.replace("tests", str(ROOT / "tests")) for word in words]
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jpg").touch()
    verb, arguments = parse(["launch.py", "--mode=predict", *words])
    with pytest.raises(UserError, match=message):
        verb.run(arguments)


def test_files_are_found_in_order_and_a_name_like_a_pattern_is_meant_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.jpg", "b/1.PNG", "b/c/3.webp", "b/.hidden.jpg", "b/.d/4.jpg", "[ab].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert pictures.find(["b", "[ab].jpg", "b/*.jpg"]) == (
        ["b/1.PNG", "b/2.jpg", "b/c/3.webp", "[ab].jpg", "b/2.jpg"],
        [],
    )


def test_a_folder_is_followed_into_links_but_not_round_in_circles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("elsewhere/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "b" / "up").symlink_to("..")
    found = (["b/2.jpg", "b/again/1.jpg", "b/link/1.jpg"], [])
    assert pictures.find(["b"]) == found
    assert pictures.find([str(tmp_path / "b")])[0] == [str(tmp_path / name) for name in found[0]]


def test_programs_are_given_a_file_s_own_name_and_terminals_one_that_does_nothing(
    run, classifier, tmp_path, capsys
):
    odd = tmp_path / "a\x1b[2Jb.jpg"
    odd.write_bytes(val_files(run)[0].read_bytes())
    predict(classifier, [str(odd)], top=1, form="jsonl")
    assert json.loads(capsys.readouterr().out)["file"] == str(odd)
    predict(classifier, [str(odd)], top=1, form="table")
    assert r"a\x1b[2Jb.jpg" in capsys.readouterr().out


def test_paths_on_standard_input_may_be_any_bytes(monkeypatch):
    given = b"caf\xe9.jpg\r\n\na\x0bb\xc2\x85.jpg\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert _words(["first.jpg", "-"]) == [
        "first.jpg",
        os.fsdecode(b"caf\xe9.jpg"),
        "a\x0bb\x85.jpg",
    ]


def test_words_are_taken_by_the_verbs_that_know_them():
    assert "is not a flag" in error_line("--mode=evaluate", "--workdir=x", "picture.jpg")
