"""`--mode=prepare` and another one in the same directory."""

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
