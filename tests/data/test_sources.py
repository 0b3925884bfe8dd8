"""Sources: what they hold, and what they refuse."""

import gzip
import math
import struct

import fabricate
import numpy as np
import pytest
from data_settings import settings

from resnet_jax import UserError, data
from resnet_jax.data import splits


def opened(train=True, **changes):
    config = settings(**changes)
    data.check(config)
    return data.open_source(config, train, 0)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    reference = load_digits()
    pairs = {
        (image.tobytes(), label)
        for image, label in zip(reference.images, reference.target, strict=True)
    }
    sources = [opened(train) for train in (True, False)]
    ours = {
        (np.round(image[..., 0] / 255 * 16).tobytes(), label)
        for source in sources
        for image, label in zip(source.images, source.labels, strict=True)
    }
    assert [len(source) for source in sources] == [1442, 355]
    assert ours == pairs
    for source in sources:
        shares = np.bincount(source.labels) / len(source)
        assert abs(shares - 0.1).max() < 0.005


def test_idx_reads_packed_and_plain(tmp_path):
    fabricate.idx_directory(tmp_path, train=40, test=15, size=8)
    train, test = (
        opened(True, name="idx", dir=str(tmp_path)),
        opened(False, name="idx", dir=str(tmp_path)),
    )
    expected = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    assert np.array_equal(train.images[..., 0], expected)
    assert (train.split, test.split, len(test), train.image_shape) == (
        "train",
        "test",
        15,
        (8, 8, 1),
    )
    assert train.classes == tuple("0123456789")
    mean, std = test.moments()
    assert mean == pytest.approx([expected.mean() / 255], rel=1e-12)
    assert std == pytest.approx([expected.std() / 255], rel=1e-12)


def test_idx_takes_class_names_from_a_file(tmp_path):
    fabricate.idx_directory(tmp_path)
    (tmp_path / "classes.txt").write_text("".join(f"kind {i}\n" for i in range(10)))
    assert opened(name="idx", dir=str(tmp_path)).classes[9] == "kind 9"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty or cut off"),
        (b"\0\0\x08", "empty or cut off"),
        (struct.pack(">HBB3I", 0, 8, 3, 40, 8, 8) + b"\0" * 100, "cannot hold"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "cannot hold"),
        (struct.pack(">HBB3I", 0, 8, 3, 1, 8, 8) + b"\0" * 100, "more bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 8, 8), "no images"),
        (struct.pack(">HBB3I", 0, 9, 3, 40, 8, 8), "not with an IDX header"),
        (b"\x89PNG", "not with an IDX header"),
        (struct.pack(">HBB3I", 0, 8, 3, 30, 8, 8) + b"\0" * 1920, "30 images but 40 labels"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_refuses_broken_files(tmp_path, content, message, packed):
    fabricate.idx_directory(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    if packed:
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    else:
        (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=message if not (packed and "hold" in message) else "hold"):
        opened(name="idx", dir=str(tmp_path))


def test_idx_refuses_a_truncated_gz(tmp_path):
    fabricate.idx_directory(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="cannot be read"):
        opened(name="idx", dir=str(tmp_path))


def test_idx_refuses_labels_that_are_no_classes(tmp_path):
    fabricate.idx_directory(tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"label 2 is outside 0\.\.1"):
        opened(name="idx", dir=str(tmp_path))
    (tmp_path / "classes.txt").unlink()
    fabricate.idx_file(tmp_path / "train-labels-idx1-ubyte.gz", 1 + np.arange(40) % 9)
    with pytest.raises(UserError, match="from 1 to 9, not from 0"):
        opened(name="idx", dir=str(tmp_path))


def test_tfds_reads_encoded_files_of_imagenet(tmp_path):
    fabricate.imagenet(tmp_path, train=11, validation=5)
    train = opened(True, name="imagenet2012", dir=str(tmp_path))
    assert (len(train), train.split, train.image_shape, len(train.classes)) == (
        11,
        "train",
        None,
        1000,
    )
    for place in range(11):
        image, label = (
            fabricate.jpeg(place, 40 + 3 * (place % 7), 60 + 5 * (place % 5)),
            37 * place % 1000,
        )
        assert (train[place].image, train[place].label) == (image, label)
    assert opened(False, name="imagenet2012", dir=str(tmp_path)).split == "validation"
    assert len(opened(False, name="imagenet2012", dir=str(tmp_path / "imagenet2012"))) == 5
    assert (
        len(opened(False, name="imagenet2012", dir=str(tmp_path / "imagenet2012" / "5.1.0"))) == 5
    )


def test_tfds_keeps_small_sets_in_memory(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), np.uint8)
    examples = [(fabricate.encoded(image, "PNG"), label % 3) for label, image in enumerate(pixels)]
    parts = {"train": examples[:14], "test": examples[14:]}
    fabricate.tfds_directory(
        tmp_path, parts, name="cifar10", version="3.0.2", classes=["a", "b", "c"], shape=(6, 6, 3)
    )
    train = opened(True, name="cifar10", dir=str(tmp_path))
    test = opened(False, name="cifar10", dir=str(tmp_path))
    assert np.array_equal(train.images, pixels[:14])
    assert np.array_equal(test.images, pixels[14:])
    assert test.moments()[0] == pytest.approx(pixels[:14].mean((0, 1, 2)) / 255, rel=1e-12)


def test_a_missing_shard_is_named(tmp_path):
    directory = fabricate.imagenet(tmp_path)
    shard = directory / "imagenet2012-train.array_record-00001-of-00002"
    shard.unlink()
    with pytest.raises(UserError, match=r"00001-of-00002: missing \(1 of 2"):
        opened(name="imagenet2012", dir=str(tmp_path))


def test_tfds_absent_says_what_to_run(tmp_path):
    with pytest.raises(
        UserError, match=r"no prepared TFDS data set 'cifar10'.*download_and_prepare"
    ):
        opened(name="cifar10", dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "hint"), [("digts", "'digits'"), ("imagenet201", "'imagenet2012'")]
)
def test_a_mistyped_name_gets_few_suggestions(name, hint):
    with pytest.raises(UserError, match=hint) as caught:
        opened(name=name)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train", range(200)),
        ("train[:90%]", range(180)),
        ("train[90%:]", range(180, 200)),
        ("train[-10%:]", range(180, 200)),
        ("train[150:]", range(150, 200)),
        ("train[-30:-10]", range(170, 190)),
        ("train[:33%]", range(66)),
        ("train[500:]", range(0)),
    ],
)
def test_a_part_of_a_split_is_what_tfds_says(text, expected):
    assert range(*splits.parse(text, "train_split").bounds(200)) == expected


def test_parts_hold_the_examples_of_the_whole():
    whole, part = opened(), opened(train_split="train[100:10%]")
    assert part.split == "train[100:10%]"
    assert np.array_equal(part.images, whole.images[100:144])


@pytest.mark.parametrize("text", ["train[", "train[:90]]", "train[10%]", "train[:120%]", ""])
def test_other_texts_are_no_splits(text):
    with pytest.raises(UserError, match=r"config.data.eval_split"):
        splits.parse(text, "eval_split")


def test_an_absent_split_says_which_exist(tmp_path):
    fabricate.imagenet(tmp_path)
    with pytest.raises(UserError, match=r"eval_split = 'val'.*validation"):
        opened(False, name="imagenet2012", dir=str(tmp_path), eval_split="val")
    with pytest.raises(UserError, match=r"train_split = 'x'.*it has|known"):
        opened(train_split="x")


def test_synthetic_needs_no_disk_and_is_learnable():
    source = opened(name="synthetic", synthetic_train=500, synthetic_classes=5, image_size=16)
    evaluation = opened(
        False,
        name="synthetic",
        synthetic_train=500,
        synthetic_eval=50,
        synthetic_classes=5,
        image_size=16,
    )
    assert (len(source), len(evaluation), source.image_shape) == (500, 50, (16, 16, 3))
    images, labels = (
        np.array(x)
        for x in zip(
            *[(e.image, e.label) for e in map(source.__getitem__, range(500))], strict=True
        )
    )
    centres = np.array([images[labels == label].mean(0) for label in range(5)])
    for place in range(50):
        distances = ((evaluation[place].image - centres) ** 2).sum((1, 2, 3))
        assert distances.argmin() == evaluation[place].label


def test_images_in_memory_are_resized_when_asked_each_its_own():
    images = opened(image_size=12).images
    assert images.shape == (1442, 12, 12, 1)
    small, original = images.mean((1, 2, 3)), opened().images.mean((1, 2, 3))
    assert np.corrcoef(small, original)[0, 1] > 0.99


def test_an_empty_part_is_no_reason_to_stumble_over_its_size():
    assert len(opened(False, eval_split="test[500:]", image_size=16)) == 0


@pytest.mark.parametrize(
    ("trained", "scored", "shared"),
    [
        ("train", "test", False),
        ("train", "train[90%:]", True),
        ("train[:90%]", "train[90%:]", False),
        ("train[:90%]", "train[:90%]", True),
        ("train[:90%]", "train[80%:]", True),
        ("train[:90%]", "test[:90%]", False),
        ("train", "train[-500:]", True),
    ],
)
def test_images_that_are_trained_on_and_scored_are_noticed(trained, scored, shared):
    assert splits.overlap(trained, scored) == shared


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "config.data.mean is set and config.data.std is not"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "one number a channel"),
        ({"crop_scale": (1.0, 0.5)}, "config.data.crop_scale"),
        ({"name": "idx"}, "config.data.dir = None"),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        opened(**changes)


def test_every_default_is_legal():
    for name, field in data.FIELDS.items():
        assert field.fault(field.default) is None, name
        assert field.help
    assert math.isclose(data.FIELDS["eval_crop"].default, 0.875)
