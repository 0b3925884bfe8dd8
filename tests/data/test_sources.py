"""Sources: what they hold, and what they refuse."""

import gzip
import math
import struct

import fabricate
import numpy as np
import pytest
from data_settings import settings

from resnet_jax import UserError, data, fields
from resnet_jax.data import splits


def opened(train=True, **changes):
    config = settings(**changes)
    data.check(config)
    return data.open_source(config, train)


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
    with pytest.raises(
        UserError, match=r"eval_split = 'val': no such split in .*known: train, validation$"
    ):
        opened(False, name="imagenet2012", dir=str(tmp_path), eval_split="val")
    with pytest.raises(UserError, match=r"train_split = 'x': no such split in .*known: "):
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
        ("train", "test", 0),
        ("train", "train[90%:]", 144),
        ("train[:90%]", "train[90%:]", 0),
        ("train[:90%]", "train[:90%]", 1298),
        ("train[:90%]", "train[80%:]", 144),
        ("train[:90%]", "test[:90%]", 0),
        ("train", "train[-500:]", 500),
        ("train[:1000]", "train[500:1000]", 500),
        ("train[:1000]", "train[1000:]", 0),
        ("train[:1000]", "train[50%:]", 279),
    ],
)
def test_images_that_are_trained_on_and_scored_are_counted(trained, scored, shared):
    splits = (opened(train_split=trained), opened(False, eval_split=scored))
    assert data.count_shared(*splits) == shared


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "config.data.mean is set and config.data.std is not"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "one number a channel"),
        ({"mean": (123.7,), "std": (58.4,)}, r"config.data.mean = \(123.7,\).*a 255th of those"),
        ({"mean": (0.5,), "std": (58.4,)}, r"config.data.std = \(58.4,\): must be at most 1"),
        ({"crop_scale": (1.0, 0.5)}, "config.data.crop_scale"),
        ({"name": "idx"}, "config.data.dir = None"),
        ({"policy": "trivialaugment"}, "did you mean 'trivialaugment_wide'"),
        ({"policy_m": 11.0}, "config.data.policy_m = 11.0: must be at most 10"),
        ({"color_jitter": (0.4, 0.4, 0.4)}, "must be .brightness, contrast, saturation, hue."),
        ({"color_jitter": (0.0, 0.0, 0.0, 0.6)}, "hue at most 0.5"),
        ({"flip": False, "flip_mode": "alternating"}, "config.data.flip is False; set it True"),
        ({"flip_mode": "alternating", "repeats": 3}, "no image is shown in every epoch"),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        fields.check("data", changes, data.FIELDS) or opened(**changes)


@pytest.mark.parametrize(
    ("train", "changes", "named"),
    [
        (
            False,
            {"eval_crop": 0.5},
            "eval_crop = 0.5 has no effect, since the images are no encoded",
        ),
        (True, {"crop_scale": (0.5, 1.0)}, "crop_scale"),
        (True, {"mixup": 0.2, "cutmix_share": 0.1}, "cutmix_share = 0.1"),
        (True, {"label_key": "species"}, "label_key = 'species'"),
        (True, {"eval_fraction": 0.5}, "eval_fraction = 0.5 has no effect, since it holds out"),
        (True, {"dir": "."}, "dir = '.' has no effect, since no directory is read"),
        (True, {"random_resized_crop": True, "image_size": 8, "crop_scale": (0.5, 1.0)}, None),
        (True, {"mixup": 0.2, "mix_probability": 0.5}, None),
        (True, {}, None),
    ],
)
def test_a_field_without_effect_is_named(train, changes, named):
    said, config = [], settings(**changes)
    source = data.open_source(config, train)
    data.Loader(source, config, batch_size=8, seed=0, train=train, say=said.append)
    if named is None:
        assert said == []
    else:
        (line,) = said
        assert line.startswith(f"config.data.{named}")


def features_of(root, examples=4, keys=None, **features):
    """Writes a TFDS set of other features than `fabricate` makes, one shard a split."""
    import tensorflow_datasets as tfds

    directory = root / "odd" / "1.0.0"
    directory.mkdir(parents=True)
    kinds = tfds.features.FeaturesDict({name: kind for name, (kind, _) in features.items()})
    template = tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name="odd", filetype_suffix="array_record", split="train"
    )
    records = [
        kinds.serialize_example({name: value for name, (_, value) in features.items()})
        for _ in range(examples)
    ]
    path = template.sharded_filepath(shard_index=0, num_shards=1)
    fabricate.write_records(path, records, "array_record")
    info = tfds.core.SplitInfo(
        name="train", shard_lengths=[examples], num_bytes=1, filename_template=template
    )
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=kinds,
        split_infos=[info],
        filename_template=template,
        check_data=False,
        **({"supervised_keys": keys} if keys else {}),
    )


def picture(*values):
    return fabricate.encoded(np.full((6, 5, len(values)), values, np.uint8), "PNG")


def test_a_feature_that_is_ambiguous_is_not_chosen_in_silence(tmp_path):
    import tensorflow_datasets as tfds

    ClassLabel, Image, Tensor = tfds.features.ClassLabel, tfds.features.Image, tfds.features.Tensor

    image = (Image(shape=(None, None, 3)), picture(1, 2, 3))
    mask = (Image(shape=(None, None, 3)), picture(9, 9, 9))
    kind, camera = (ClassLabel(names=["x", "y"]), 1), (ClassLabel(names=["c", "d"]), 0)
    number = (Tensor(shape=(), dtype=np.int64), 3)
    for case, (features, refusal) in enumerate(
        [
            ({"image": image, "label": kind}, None),
            ({"photo": image, "species": kind}, None),
            (
                {"image": image, "kind": kind, "camera": camera},
                r"label_key = None: .*\b(kind\b.*camera|camera\b.*kind)\b",
            ),
            ({"photo": image, "mask": mask, "label": kind}, "image_key = None.*several Image"),
            ({"image": image, "label": number, "camera": camera}, "'label' is no ClassLabel"),
            ({"image": image, "label": number}, "has no ClassLabel feature"),
        ]
    ):
        root = tmp_path / str(case)
        features_of(root, **features)
        if refusal is None:
            assert opened(name="odd", dir=str(root))[0].label == 1
        else:
            with pytest.raises(UserError, match=refusal):
                opened(name="odd", dir=str(root))
    root = tmp_path / "2"
    assert opened(name="odd", dir=str(root), label_key="camera").classes == ("c", "d")
    assert opened(name="odd", dir=str(root), label_key="kind").classes == ("x", "y")
    with pytest.raises(
        UserError, match=r"label_key = 'knid'.*name one of (camera, kind|kind, camera)"
    ):
        opened(name="odd", dir=str(root), label_key="knid")


def test_the_label_that_the_data_set_states_is_needed(tmp_path):
    import tensorflow_datasets as tfds

    ClassLabel, Image, Tensor = tfds.features.ClassLabel, tfds.features.Image, tfds.features.Tensor

    features_of(
        tmp_path,
        keys=("image", "age"),
        image=(Image(shape=(None, None, 3)), picture(1, 2, 3)),
        age=(Tensor(shape=(), dtype=np.int64), 3),
        camera=(ClassLabel(names=["c", "d"]), 0),
    )
    with pytest.raises(UserError, match=r"label_key = None: odd: 'age' is no ClassLabel feature"):
        opened(name="odd", dir=str(tmp_path))


@pytest.mark.parametrize("shape", [(6, 5, 4), (None, None, 4)])
def test_alpha_is_dropped_from_images_of_one_size_as_from_others(tmp_path, shape):
    import tensorflow_datasets as tfds

    ClassLabel, Image = tfds.features.ClassLabel, tfds.features.Image

    features_of(
        tmp_path,
        image=(Image(shape=shape, encoding_format="png"), picture(10, 20, 30, 40)),
        label=(ClassLabel(names=["x", "y"]), 1),
    )
    config = settings(name="odd", dir=str(tmp_path), image_size=None if shape[0] else 5)
    source = data.open_source(config, True)
    batch = data.Loader(source, config, batch_size=4, seed=0, train=False)[0]
    assert batch["image"].shape[-1] == 3
    assert batch["image"][0, 2, 2].tolist() == [10, 20, 30]


def test_every_default_is_legal():
    for name, field in data.FIELDS.items():
        assert field.fault(field.default) is None, name
        assert field.help
    assert math.isclose(data.FIELDS["eval_crop"].default, 0.875)
