"""What is wrong with data is said in one line, before or while it is read."""

import io
import pickle
import re
import tarfile

import fabricate
import numpy as np
import pytest
from data_settings import settings
from PIL import Image

from resnet_jax import UserError, data
from resnet_jax.data import prepare as preparing
from resnet_jax.data.images import decode
from resnet_jax.data.sources import classes, tars
from resnet_jax.data.sources.source import ArraySource


def opened(train=True, **changes):
    fields = settings(**changes)
    data.check(fields)
    return data.open_source(fields, train)


def refused(words, **changes):
    with pytest.raises(UserError, match=words):
        opened(**changes)


def array_source(*shape, **options):
    images = np.zeros((*shape, 3), np.uint8)
    labels = np.zeros(len(images), np.int32)
    return ArraySource("arrays", "train", ("a",), images, labels, lambda: None, **options)


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    refused("train: has no class folders", name="folder", dir=str(tmp_path / "data"))
    (tmp_path / "data" / "train").rmdir()
    refused("data: has no class folders", name="folder", dir=str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "is no CIFAR file; unpack it again"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "has no CIFAR data and labels"),
        ({b"data": np.zeros((2, 9), np.uint8), b"labels": [0, 1]}, "2 labels but data of shape"),
    ],
)
def test_a_pickle_that_is_no_cifar_file_is_refused(tmp_path, content, words):
    fabricate.cifar_directory(tmp_path, form="python")
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    refused(f"data_batch_2.*{words}", name="cifar", dir=str(tmp_path))


def test_a_directory_without_the_idx_files_names_one(tmp_path):
    refused(
        "no such file; it needs one named like train-images-idx3", name="idx", dir=str(tmp_path)
    )


def test_class_lists_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        classes.read(tmp_path)
    listed = tmp_path / "map.txt"
    listed.write_text("cat\ncow\tmoo\n")
    with pytest.raises(UserError, match="line 2: the data has no class 'cow'"):
        classes.read_map(listed, ("cat", "dog"), ("cat", "moo"))


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (None, None, "ILSVRC2012_img_train.tar: no such file"),
        (b"no tar", None, "is no readable tar"),
        ([("other.tar", b"")], None, "other.tar is no class of ImageNet"),
        (None, [("a.JPEG", b"x")], "holds 1 files, not 50000"),
    ],
)
def test_files_that_are_not_imagenets_tars_are_refused(tmp_path, train, val, words):
    for name, content in (("train", train), ("val", val)):
        path = tmp_path / f"ILSVRC2012_img_{name}.tar"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content:
            fabricate.tar(path, content)
    refused(words, train=val is None, name="imagenet_tars", dir=str(tmp_path))


def test_a_tar_that_was_cut_off_since_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    fabricate.tar(path, [("a.JPEG", b"x" * 5000)])
    with tarfile.open(path) as archive:
        place = archive.getmembers()[0].offset_data
    path.write_bytes(path.read_bytes()[: place + 10])
    source = tars.TarSource("val", path, ("a",), [("a.JPEG", place, 5000)], np.zeros(1, np.int32))
    with pytest.raises(UserError, match=r"a\.JPEG: the tar is cut off there"):
        source[0]


def test_metadata_that_tfds_cannot_read_and_features_that_are_none_are_refused(tmp_path):
    one = [(fabricate.jpeg(0), 0)]
    made = fabricate.tfds_directory(tmp_path, {"train": one}, name="x", classes=["a"], shards=1)
    fields = {"name": "x", "dir": str(tmp_path)}
    refused("'file_name' is no ClassLabel feature of it; name one of label", label_key="file_name", **fields)  # fmt: skip
    (made / "dataset_info.json").write_text("{")
    refused("TFDS cannot read its metadata", **fields)


def test_a_split_without_images_and_images_that_are_not_square_are_refused():
    empty = array_source(0, 8, 8)
    with pytest.raises(UserError, match="train has no examples; choose another split"):
        data.Loader(empty, settings(), batch_size=2, train=False, seed=0)
    wide = array_source(4, 8, 6)
    fields = settings(random_resized_crop=True)
    with pytest.raises(UserError, match="crops at random are square, the images 8 by 6; set it"):
        data.Loader(wide, fields, batch_size=2, train=True, seed=0)


def test_a_broken_image_of_a_set_in_memory_and_a_broken_picture_are_named():
    with pytest.raises(UserError, match="record 1: broken; replace or remove it"):
        array_source(2, 8, 8, faults={1: "record 1: broken"})[1]
    with pytest.raises(UserError, match="here: no readable image"):
        decode.pixels_of(None, 3, "here")


def test_a_record_of_a_shard_that_is_no_example_is_refused(tmp_path):
    fabricate.folder_tree(tmp_path / "tree", {"train": {"a": [fabricate.jpeg(0)]}})
    tree, out = opened(name="folder", dir=str(tmp_path / "tree")), tmp_path / "out"
    preparing.prepare({"train": tree}, out)
    (shard,) = out.glob("*.array_record*")
    fabricate.write_records(shard, [b"x"], "array_record")
    index = (out / "index.json").read_text()
    size = re.sub(r'"bytes": \d+', f'"bytes": {shard.stat().st_size}', index)
    (out / "index.json").write_text(size)
    with pytest.raises(UserError, match="is no prepared example"):
        opened(name="shards", dir=str(out))[0]


def test_shards_are_refused_for_what_they_cannot_hold(tmp_path, monkeypatch):
    tree = {"train": {"a": [fabricate.jpeg(0)]}}
    fabricate.folder_tree(tmp_path / "one", tree)
    fabricate.folder_tree(tmp_path / "two", {"train": {"b": [fabricate.jpeg(1)]}})
    one, two = (opened(name="folder", dir=str(tmp_path / name)) for name in ("one", "two"))
    with pytest.raises(UserError, match="have different classes; prepare them apart"):
        preparing.prepare({"train": one, "val": two}, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*check the path and its permissions"):
        preparing.prepare({"train": one}, tmp_path / "file" / "out")
    lost = {"examples": 0, "file": "", "sha256": "", "bytes": 0}
    monkeypatch.setattr(preparing, "_read_note", lambda path: lost)
    with pytest.raises(UserError, match="0 of 1 train examples; empty it and prepare again"):
        preparing.prepare({"train": one}, tmp_path / "short")


@pytest.mark.parametrize(
    ("file", "old", "new", "name", "message"),
    [
        ("features.json", '"uint8"', '"uint16"', "x", "its images are uint16; uint8 is needed"),
        ("features.json", '"numClasses": "2"', "", "x", "its labels state no number of classes"),
        ("dataset_info.json", '"array_record"', '"parquet"', "x", "is in TFDS's parquet format"),
        ("dataset_info.json", "", "", "x:9.9.9", "has version 5.1.0 of it; drop the ':9.9.9'"),
    ],
)
def test_a_tfds_set_that_is_not_as_this_package_reads_it_is_refused(
    tmp_path, file, old, new, name, message
):
    png = io.BytesIO()
    Image.fromarray(np.zeros((6, 7, 3), np.uint8)).save(png, "png")
    examples = {split: [(png.getvalue(), 0)] * 2 for split in ("train", "test")}
    directory = fabricate.tfds_directory(
        tmp_path, examples, name="x", classes=["a", "b"], shape=(6, 7, 3)
    )
    (directory / file).write_text((directory / file).read_text().replace(old, new))
    if not new and old:
        (directory / "label.labels.txt").unlink()
    with pytest.raises(UserError, match=re.escape(message)):
        opened(name=name, dir=str(tmp_path))
