"""`--mode=prepare` and another one in the same directory."""

import json
import shutil

import fabricate
import pytest

from resnet_jax import UserError, data
from resnet_jax import config as config_lib
from resnet_jax.commands.prepare import prepare
from resnet_jax.distributed.lock import FILE, Lock


def test_a_second_preparation_in_the_same_directory_is_refused(tmp_path):
    images = [fabricate.jpeg(seed) for seed in range(2)]
    fabricate.folder_tree(tmp_path / "tree", {"train": {"a": images}, "val": {"a": images}})
    given = ("folder", str(tmp_path / "tree"), str(tmp_path / "out"))
    with Lock(tmp_path / "out"), pytest.raises(UserError, match="in use by process"):
        prepare(*given)
    prepare(*given)
    assert not (tmp_path / "out" / FILE).exists()
    assert any((tmp_path / "out").iterdir())


def test_a_split_without_images_is_prepared_as_one(tmp_path):
    images = [fabricate.jpeg(seed) for seed in range(2)]
    fabricate.folder_tree(tmp_path / "tree", {"train": {"a": images}, "val": {"a": images}})
    out = str(tmp_path / "out")
    prepare("folder", str(tmp_path / "tree"), out, splits=("train", "val[:0%]"))
    config = config_lib.defaults().data
    config.name, config.dir, config.image_size = "shards", out, 8
    assert len(data.open_source(config, True)) == 2


def test_a_class_that_comes_or_goes_is_prepared_with_the_others(tmp_path):
    images = [fabricate.jpeg(seed) for seed in range(2)]
    tree, out = tmp_path / "tree", tmp_path / "out"
    old = {"a": images, "b": images}
    fabricate.folder_tree(tree, {"train": old, "val": old})

    def counts():
        prepare("folder", str(tree), str(out))
        index = json.loads((out / "index.json").read_text())
        return {split: found["counts"] for split, found in index["splits"].items()}

    assert counts() == {"train": [2, 2], "val": [2, 2]}
    fabricate.folder_tree(tree, {"train": {"c": images}})
    assert counts() == {"train": [2, 2, 2], "val": [2, 2, 0]}
    shutil.rmtree(tree / "train" / "c")
    assert counts() == {"train": [2, 2], "val": [2, 2]}
