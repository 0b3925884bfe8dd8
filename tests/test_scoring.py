"""Runs and weights scored at several sizes, class by class, and over a map of classes."""

import csv
import dataclasses
import json
import math

import fabricate
import jax
import numpy as np
import pytest
from running import launch, tiny_recipe

from resnet_jax import Classifier, UserError, create_model, preprocess, save_torch
from resnet_jax.classifier import Named
from resnet_jax.commands.evaluate import Images, evaluate, evaluate_weights
from resnet_jax.commands.train import train
from resnet_jax.data.sources.classes import read_map
from resnet_jax.scoring import How
from resnet_jax.training.answers import Answers
from resnet_jax.training.reporting import scorecard
from resnet_jax.training.step import Scores

CLASSES = tuple("abcdefghij")


def answers_of(labels, predictions, confidences):
    """The answers in two batches, the second of which ends in a masked row."""
    answers = Answers()
    for rows, masked in ((slice(0, 2), 0), (slice(2, None), 1)):
        parts = [np.array(values)[rows] for values in (labels, predictions, confidences)]
        label, prediction, confidence = (np.append(part, [0] * masked) for part in parts)
        mask = np.arange(len(label)) < len(label) - masked
        prediction = prediction.astype(int)
        index = np.arange(len(label)) + (rows.start or 0)
        answers.add(Scores({}, label.astype(int), mask, prediction, confidence, index))
    return answers


def test_the_confusion_matrix_and_the_accuracy_of_each_class_are_counted():
    answers = answers_of([0, 0, 0, 1, 2], [0, 1, 1, 1, 3], [0.9, 0.8, 0.7, 0.6, 0.5])
    expected = [[1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert answers.confusion(3).tolist() == expected
    images, right = answers.per_class(3)
    assert (images.tolist(), right.tolist()) == ([3, 1, 1], [1, 1, 0])
    rows = scorecard.class_rows(answers, ("cat", "dog", "cow"))
    assert rows == [("cat", 3, 1, "dog", 2), ("dog", 1, 1, "", 0), ("cow", 1, 0, "3", 1)]


def test_an_answer_that_is_no_number_is_wrong_and_not_confused():
    answers = answers_of([0, 1, 1], [0, -1, 1], [1.0, 0.0, 1.0])
    assert answers.confusion(2).tolist() == [[1, 0], [0, 1]]
    assert answers.per_class(2)[1].tolist() == [1, 1]
    assert answers.calibration_error() == 0


def test_the_calibration_error_is_that_of_the_definition():
    draw = np.random.default_rng(0)
    labels, confidences = draw.integers(0, 4, 500), draw.uniform(0, 1, 500)
    confidences[:3] = 1 / 15, 1.0, 0.0
    predictions = np.where(draw.uniform(0, 1, 500) < confidences**2, labels, (labels + 1) % 4)
    expected = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        chosen = (confidences > low) & (confidences <= high)
        if number == 0:
            chosen |= confidences == 0
        if chosen.any():
            accuracy = (labels == predictions)[chosen].mean()
            expected += chosen.sum() / 500 * abs(accuracy - confidences[chosen].mean())
    found = answers_of(labels, predictions, confidences).calibration_error()
    assert found == pytest.approx(expected)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of ten classes with random numbers, and a folder of three of them to score."""
    root = tmp_path_factory.mktemp("weights")
    model = create_model("cifar_resnet20", num_classes=10)
    variables = model.init(jax.random.key(3), np.zeros((1, 32, 32, 3), np.float32))
    save_torch(variables, root / "weights.safetensors")
    (root / "names.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    pictures = {
        name: [fabricate.jpeg(10 * place + i, 30, 40) for i in range(7)]
        for place, name in enumerate(("c", "e", "f"))
    }
    fabricate.folder_tree(root / "pictures", {"": pictures})
    return root


@pytest.fixture(scope="module")
def network(weights):
    """What a verb reads from that file, with the names of the classes."""
    file = str(weights / "weights.safetensors")
    return Named(None, file, "cifar_resnet20", str(weights / "names.txt")).load()


def test_weights_are_scored_at_several_sizes_on_a_part_of_their_classes(weights, network, tmp_path):
    """All against the answers of the classifier, restricted to the three classes."""
    (tmp_path / "map.txt").write_text("c\ne\t4\nf\tf\n")
    done = launch(
        "--mode=evaluate",
        f"--weights={weights / 'weights.safetensors'}",
        "--model=cifar_resnet20",
        f"--classes={weights / 'names.txt'}",
        f"--data_dir={weights / 'pictures'}",
        f"--class_map={tmp_path / 'map.txt'}",
        "--eval_size=24,32",
        "--eval_crop=1.0",
        "--batch_size=8",
        f"--output_dir={tmp_path / 'scores'}",
    )
    records = [json.loads(line) for line in done.stdout.splitlines()[-2:]]
    assert [record["eval_size"] for record in records] == [24, 32]
    assert {(r["split"], r["examples"], r["data"]) for r in records} == {("all", 21, "folder")}
    model, variables, description = network
    paths = sorted((weights / "pictures").glob("*/*.jpg"))
    labels = ["cef".index(path.parent.name) for path in paths]
    for record in records:
        size = record["eval_size"]
        about = dataclasses.replace(description, eval_size=size, crop=1.0)
        found = Classifier(model, variables, about).predict(paths, top=10)
        named = [dict(zip(a.classes, a.probabilities, strict=True)) for a in found]
        three = np.array([[a[name] for name in "cef"] for a in named])
        three /= three.sum(1, keepdims=True)
        right = int((three.argmax(1) == labels).sum())
        assert record["top1"] == right / 21
        loss = -np.log(three[np.arange(21), labels]).mean()
        assert record["loss"] == pytest.approx(loss, rel=1e-4)
        with (tmp_path / "scores" / f"confusion_{size}.csv").open() as file:
            (_, *names), *rows = csv.reader(file)
        assert names == ["c", "e", "f"]
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows])
        assert (counts.sum(), np.trace(counts)) == (21, right)
        assert (tmp_path / "scores" / f"confusion_{size}.png").stat().st_size > 1000
    assert "most often taken for" in done.stdout
    assert "calibration error" in done.stdout


def test_mirroring_averages_the_logits_of_both_images(weights, network, capsys):
    model, variables, description = network
    images = Images(directory=str(weights / "pictures"))
    (weights / "map.txt").write_text("c\ne\nf\n")
    how = How(sizes=(24,), mirror=True, class_map=str(weights / "map.txt"))
    evaluate_weights(network, images=images, how=how)
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["mirror"] is True
    paths = sorted((weights / "pictures").glob("*/*.jpg"))
    pixels = preprocess(paths, dataclasses.replace(description, eval_size=24))
    apply = jax.jit(model.apply)
    logits = (apply(variables, pixels) + apply(variables, pixels[:, :, ::-1])) / 2
    chosen = jax.nn.log_softmax(logits[:, np.array([2, 4, 5])])
    labels = np.repeat([0, 1, 2], 7)
    expected = -float(chosen[np.arange(21), labels].mean())
    assert record["loss"] == pytest.approx(expected, rel=1e-4)


def test_other_classes_are_refused_with_what_helps(weights, network):
    with pytest.raises(UserError, match=r"10 classes that are not the 3 of folder.*--class_map"):
        evaluate_weights(network, images=Images(directory=str(weights / "pictures")))
    with pytest.raises(UserError, match="--data_dir is missing: with --weights"):
        evaluate_weights(network)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tench\ncat\tdog\n", "line 2: the network has no class 'dog'"),
        ("fish\n", "line 1: the data has no class 'fish'"),
        ("tench\ncat\t0\n", "line 2: 'tench' is 'tench' already"),
        ("tench\n", "has no line for 1 classes of the data, such as 'cat'"),
    ],
)
def test_a_map_of_classes_that_is_wrong_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "map.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_map(path, ("tench", "cat"), ("tench", "tabby", "tiger cat"))


def test_a_map_takes_names_numbers_and_wordnet_ids_and_joins_classes(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("n01440764\n\ncat\ttabby\ncat\t2\n")
    assert read_map(path, ("tench", "cat"), ("tench", "tabby", "tiger cat")) == [(0,), (1, 2)]


def test_a_class_that_joins_two_has_the_sum_of_their_probabilities():
    from resnet_jax.training.loss import softmax_cross_entropy
    from resnet_jax.training.step import score_step

    logits = jax.random.normal(jax.random.key(0), (6, 5))

    class Constant:
        def apply(self, variables, images, train):
            return logits

    batch = {"image": logits, "label": np.array([0, 1] * 3), "mask": np.ones(6, bool)}
    batch["index"] = np.arange(6)
    members = np.array([[0, -1], [1, 3]])
    scores = score_step(
        {}, batch, model=Constant(), normalise=lambda images: images,
        loss=softmax_cross_entropy, members=members,
    )  # fmt: skip
    p = np.exp(np.asarray(logits, np.float64))
    two = np.stack([p[:, 0], p[:, 1] + p[:, 3]], 1)
    two /= two.sum(1, keepdims=True)
    expected = -np.log(two[np.arange(6), batch["label"]]).sum()
    assert float(scores.sums["loss"]) == pytest.approx(expected, rel=1e-5)
    assert scores.prediction.tolist() == two.argmax(1).tolist()
    np.testing.assert_allclose(scores.confidence, two.max(1), rtol=1e-5)


def test_a_plain_folder_tree_is_scored_whole_and_trained_on_in_parts_only(weights):
    config = tiny_recipe(data__name="folder", data__dir=str(weights / "pictures"))
    with pytest.raises(UserError, match=r"has no training split.*eval_fraction=0\.1"):
        train(config, str(weights / "run"))


def test_many_classes_are_told_by_the_worst():
    labels = np.repeat(np.arange(30), 2)
    predictions = np.where(labels < 3, 29, labels)
    lines = scorecard.per_class(
        answers_of(labels, predictions, np.ones(60)), [f"c{n}" for n in range(30)]
    )
    assert lines[0] == "the 10 worst of 30 classes:"
    assert [line.split()[0] for line in lines[2:5]] == ["c0", "c1", "c2"]
    assert not math.isnan(answers_of(labels, predictions, np.ones(60)).calibration_error())


def test_a_run_is_scored_at_another_size_than_its_own(tmp_path, capsys):
    train(tiny_recipe(num_epochs=1), str(tmp_path))
    capsys.readouterr()
    evaluate(str(tmp_path), how=How(sizes=(8, 12)))
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [record["eval_size"] for record in records] == [8, 12]
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (records[0]["top1"], records[0]["loss"]) == (log[-1]["top1"], log[-1]["loss"])
    assert records[1]["loss"] != records[0]["loss"]
