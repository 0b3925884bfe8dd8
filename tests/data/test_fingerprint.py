"""What a split consists of, and what has changed since."""

import json
import os

import fabricate
import numpy as np
import pytest
from data_settings import settings

from resnet_jax import data
from resnet_jax.commands import prepare as command
from resnet_jax.data.sources import fingerprint as module


def opened(train=True, **changes):
    return data.open_source(settings(**changes), train)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    classes = {name: [fabricate.jpeg(i, 30 + i, 40) for i in range(4)] for name in "abc"}
    fabricate.folder_tree(root, {"train": classes, "val": classes})
    return root


def kept(source):
    """A fingerprint as a run reads it back."""
    return json.loads(json.dumps(data.fingerprint(source)))


@pytest.fixture
def folder(tree):
    fields = {"name": "folder", "dir": str(tree)}
    return fields, kept(opened(**fields))


def changes(folder):
    fields, before = folder
    return data.describe_changes(before, opened(**fields))


def test_what_has_not_changed_is_not_told(folder, tree, tmp_path):
    assert changes(folder) == []
    os.utime(tree / "train" / "a" / "image_0001.jpg", (0, 0))
    tree.rename(tmp_path / "elsewhere")
    assert (
        data.describe_changes(folder[1], opened(name="folder", dir=str(tmp_path / "elsewhere")))
        == []
    )


def test_an_added_and_a_lost_file_are_named(folder, tree):
    (tree / "train" / "a" / "new.jpg").write_bytes(b"new")
    (tree / "train" / "c" / "image_0002.jpg").unlink()
    assert changes(folder) == ["1 file added (a/new.jpg)", "1 file gone (c/image_0002.jpg)"]


def test_a_file_in_another_class_is_relabelled(folder, tree):
    (tree / "train" / "a" / "own.jpg").write_bytes(b"of a size of its own")
    before = kept(opened(**folder[0]))
    (tree / "train" / "a" / "own.jpg").rename(tree / "train" / "c" / "own.jpg")
    assert data.describe_changes(before, opened(**folder[0])) == [
        "1 file relabelled (a/own.jpg -> c/own.jpg)"
    ]
    (tree / "train" / "c" / "own.jpg").rename(tree / "train" / "c" / "renamed.jpg")
    assert data.describe_changes(before, opened(**folder[0])) == [
        "1 file added (c/renamed.jpg)",
        "1 file gone (a/own.jpg)",
    ]


def test_another_order_of_classes_relabels_every_file(folder, tree):
    (tree / "classes.txt").write_text("b\na\nc\n")
    (names, relabelled) = changes(folder)
    assert names == "the classes have other names"
    assert relabelled.startswith("8 files relabelled (b/image_0000.jpg; b/image_0001.jpg;")


def test_a_file_of_another_size_is_named(folder, tree):
    (tree / "train" / "b" / "image_0000.jpg").write_bytes(b"short")
    assert changes(folder) == ["1 file of another size (b/image_0000.jpg)"]


def test_of_a_large_tree_the_folders_are_compared(tree, monkeypatch):
    monkeypatch.setattr(module, "_MOST_SIZES", 5)
    fields = {"name": "folder", "dir": str(tree)}
    before = kept(opened(**fields))
    assert "listing" not in before
    (tree / "train" / "b" / "image_0000.jpg").write_bytes(b"another size is not seen here")
    assert data.describe_changes(before, opened(**fields)) == []
    (tree / "train" / "b" / "image_0000.jpg").unlink()
    (tree / "train" / "a" / "image_0000.jpg").rename(tree / "train" / "a" / "other.jpg")
    assert data.describe_changes(before, opened(**fields)) == [
        "2 class folders with other files (a: 4 files, now 4; b: 4 files, now 3)"
    ]
    (tree / "classes.txt").write_text("b\na\nc\n")
    assert data.describe_changes(before, opened(**fields))[-1] == (
        "2 class folders relabelled (b; a)"
    )


def test_a_part_is_known_by_its_bounds_and_its_whole(folder, tree):
    fields = {**folder[0], "train_split": "train[:50%]"}
    before = kept(opened(**fields))
    assert (before["examples"], before["part"]) == (6, [0, 6])
    assert data.describe_changes(folder[1], opened(**fields)) == [
        "the part None of it became [0, 6]"
    ]
    (tree / "train" / "c" / "z.jpg").write_bytes(b"z")
    assert data.describe_changes(before, opened(**fields)) == ["1 file added (c/z.jpg)"]


def test_names_that_are_not_utf8_are_kept(folder, tree):
    os.rename(
        tree / "train" / "a" / "image_0000.jpg", os.fsencode(tree / "train" / "a") + b"/\xe9.jpg"
    )
    assert changes(folder) == ["1 file added (a/\\xe9.jpg)", "1 file gone (a/image_0000.jpg)"]
    before = kept(opened(**folder[0]))
    assert data.describe_changes(before, opened(**folder[0])) == []


def test_images_in_memory_are_known_by_their_bytes(tmp_path):
    fabricate.idx_directory(tmp_path, train=40)
    fields = {"name": "idx", "dir": str(tmp_path)}
    before = kept(opened(**fields))
    # Resizing may differ by a level between machines and is no part of it.
    assert data.describe_changes(before, opened(**fields, image_size=12)) == []
    labels = np.arange(40) % 10
    fabricate.idx_file(tmp_path / "train-labels-idx1-ubyte.gz", labels[::-1])
    assert data.describe_changes(before, opened(**fields)) == [
        "images are relabelled, or in another order"
    ]
    fabricate.idx_file(tmp_path / "train-labels-idx1-ubyte.gz", np.minimum(labels, 8))
    assert "the classes have other numbers of images" in data.describe_changes(
        before, opened(**fields)
    )
    fabricate.idx_directory(tmp_path, train=41)
    assert data.describe_changes(before, opened(**fields))[0] == "40 images became 41"


@pytest.mark.parametrize("shape", [(None, None, 3), (30, 40, 3)])
def test_tfds_and_shards_are_known_by_their_shards(tmp_path, shape):
    def make(root, count):
        kind = "PNG" if shape[0] else "JPEG"
        draws = np.random.default_rng(0)
        pixels = draws.integers(0, 256, (count, 30, 40, 3), np.uint8)
        examples = [(fabricate.encoded(image, kind), i % 2) for i, image in enumerate(pixels)]
        fabricate.tfds_directory(
            root, {"train": examples}, name="x", classes=["a", "b"], shape=shape
        )
        return opened(name="x", dir=str(root))

    before = kept(make(tmp_path / "one", 6))
    assert data.describe_changes(before, make(tmp_path / "same", 6)) == []
    (clause,) = data.describe_changes(before, make(tmp_path / "more", 7))
    assert clause.startswith("1 shard with other content (x-train")
    assert "3 examples" in clause
    assert "now 4" in clause


def test_prepared_shards_tell_when_they_were_made_of_other_images(tree, tmp_path):
    def pack(output):
        command.prepare("folder", str(tree), str(output), splits=["train"], shard_examples=5)
        return opened(name="shards", dir=str(output))

    before = kept(pack(tmp_path / "one"))
    (tree / "train" / "a" / "image_0000.jpg").write_bytes(fabricate.jpeg(7, 60, 60))
    (clause,) = data.describe_changes(before, pack(tmp_path / "two"))
    assert clause == "1 shard with other content (train-00000-of-00003.array_record)"


def test_a_fingerprint_of_another_kind_or_none_is_told(folder):
    source = opened(**folder[0])
    assert data.describe_changes({}, source) == ["it was read from None, now from files"]
    assert data.describe_changes({"kind": "files", "digest": "x"}, source)


def test_a_small_fingerprint_is_kept_of_every_source(tmp_path):
    for fields in ({}, {"name": "synthetic", "synthetic_train": 50, "image_size": 8}):
        found = kept(opened(**fields))
        assert found["kind"] == "arrays"
        assert data.describe_changes(found, opened(**fields)) == []
