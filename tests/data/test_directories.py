"""Sources in directories: folder trees, CIFAR's files, TFRecord shards, prepared shards, ImageNet's
tars.
"""

import io
import json
import pickle
import re
import struct
import threading
from contextlib import nullcontext

import fabricate
import numpy as np
import pytest
from data_settings import settings
from PIL import Image

from resnet_jax import UserError, config, data
from resnet_jax.commands import prepare as command
from resnet_jax.data.prepare import prepare
from resnet_jax.data.sources import tars, tfrecord


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(train=True, **changes):
    fields = settings(
        **{name: str(value) if name == "dir" else value for name, value in changes.items()}
    )
    data.check(fields)
    return data.open_source(fields, train)


def content(source):
    return [(source[place].image, source[place].label) for place in range(len(source))]


def images(first, count):
    return [fabricate.jpeg(first + i, 30 + i, 40) for i in range(count)]


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    classes = {"b": images(10, 3), "a": images(0, 4)}
    fabricate.folder_tree(root, {"train": classes, "val": {"a": images(20, 2), "b": images(30, 1)}})
    return root


def test_folder_classes_are_sorted_and_files_in_order(tree):
    (tree / "train" / "a" / "notes.txt").write_text("no image")
    train = opened(name="folder", dir=tree)
    assert train.classes == ("a", "b")
    assert content(train) == [(x, 0) for x in images(0, 4)] + [(x, 1) for x in images(10, 3)]
    assert train.where(4).endswith("train/b/image_0000.jpg")
    evaluation = opened(False, name="folder", dir=tree)
    assert (evaluation.split, len(evaluation)) == ("val", 3)


def test_folder_takes_the_order_of_a_classes_file(tree):
    (tree / "classes.txt").write_text("b\na\n")
    assert content(opened(name="folder", dir=tree))[0] == (images(10, 1)[0], 0)


@pytest.mark.parametrize("there", ["validation", "valid", "test"])
def test_folder_finds_the_evaluation_split(tree, there):
    (tree / "val").rename(tree / there)
    assert opened(False, name="folder", dir=tree).split == there
    if there != "test":
        assert opened(False, name="folder", dir=tree, eval_split="val").split == there
    with pytest.raises(UserError, match=rf"eval_split = 'tset'.*{there}"):
        opened(False, name="folder", dir=tree, eval_split="tset")


def test_a_run_from_before_the_rule_keeps_holding_out_by_position(tmp_path):
    fabricate.folder_tree(tmp_path / "one", {"": {"a": images(0, 10), "b": images(20, 5)}})
    older = json.loads(config.to_json(config.defaults()))
    del older["data"]["holdout"]
    holdout = config.from_json(json.dumps(older)).data.holdout
    fields = {"name": "folder", "dir": tmp_path / "one", "eval_fraction": 0.2, "holdout": holdout}
    train, evaluation = opened(True, **fields), opened(False, **fields)
    assert np.bincount(train.labels).tolist() == [8, 4]
    assert np.bincount(evaluation.labels).tolist() == [2, 1]
    assert not set(train.paths) & set(evaluation.paths)
    with pytest.raises(UserError, match=r"data\.eval_fraction"):
        opened(name="folder", dir=tmp_path / "one")


def test_wordnet_ids_become_names(tmp_path):
    fabricate.folder_tree(
        tmp_path / "t", {"train": {"n01440764": images(0, 1), "n02012849": images(1, 1)}}
    )
    assert opened(name="folder", dir=tmp_path / "t").classes == ("tench", "crane (bird)")


def test_imagenets_names_are_in_the_order_of_its_labels(tmp_path):
    fabricate.imagenet(tmp_path / "d", train=2, validation=2)
    classes = opened(name="imagenet2012", dir=tmp_path / "d").classes
    assert (classes[0], classes[207], classes[999]) == (
        "tench",
        "golden retriever",
        "toilet tissue",
    )
    assert len(set(classes)) == 1000


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda tree: [file.unlink() for file in (tree / "train" / "a").iterdir()],
            "train/a: holds no images",
        ),
        (
            lambda tree: (tree / "val" / "b").rename(tree / "val" / "c"),
            "val/c: no class of the training folder",
        ),
        (lambda tree: (tree / "val").rename(tree / "other"), "has no evaluation split"),
    ],
)
def test_a_folder_with_holes_is_refused(tree, damage, message):
    damage(tree)
    with pytest.raises(UserError, match=message):
        assert [opened(train, name="folder", dir=tree) for train in (True, False)]


@pytest.mark.parametrize(("part", "lacking"), [("train[:50%]", 1), ("train[1:]", 0)])
def test_a_part_of_a_folder_that_lacks_whole_classes_is_not_trained_on(tree, part, lacking):
    fields = settings(name="folder", dir=str(tree), train_split=part, image_size=8)
    source = data.open_source(fields, True)
    assert source.lacking_classes() == lacking
    refusal = (
        pytest.raises(UserError, match=r"train\[:50%\] has none of 1 of the classes")
        if lacking
        else nullcontext()
    )
    with refusal:
        data.Loader(source, fields, batch_size=2, seed=0, train=True)


def test_the_remedy_for_a_folder_without_an_evaluation_split_holds_out_of_each_class(tree):
    (tree / "val").rename(tree / "other")
    train, val = (
        opened(train, name="folder", dir=tree / "train", eval_fraction=0.5)
        for train in (True, False)
    )
    assert set(train.labels) == set(val.labels) == {0, 1}


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_reads_both_published_forms(tmp_path, form, classes):
    expected = fabricate.cifar_directory(tmp_path / "c", form, classes)
    for train, split in ((True, "train"), (False, "test")):
        source = opened(train, name="cifar", dir=tmp_path / "c")
        assert np.array_equal(source.images, expected[split][0])
        assert np.array_equal(source.labels, expected[split][1])
        assert source.classes == tuple(f"class{i}" for i in range(classes))
    assert source.moments()[0] == pytest.approx(expected["train"][0].mean((0, 1, 2)) / 255)


def test_cifar_refuses_what_is_not_cifar(tmp_path):
    with pytest.raises(UserError, match="not all files of any form"):
        opened(name="cifar", dir=tmp_path)
    fabricate.cifar_directory(tmp_path / "b")
    (tmp_path / "b" / "data_batch_2.bin").write_bytes(b"\0" * 3074)
    with pytest.raises(UserError, match=r"data_batch_2\.bin: 3074 bytes are no whole number"):
        opened(name="cifar", dir=tmp_path / "b")


def test_a_pickle_that_calls_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("called",)

    fabricate.cifar_directory(tmp_path / "p", "python")
    (tmp_path / "p" / "data_batch_1").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(UserError, match=r"it calls builtins\.print"):
        opened(name="cifar", dir=tmp_path / "p")


def test_tfrecord_gives_what_array_record_gives(tmp_path):
    for file_format in ("array_record", "tfrecord"):
        fabricate.imagenet(tmp_path / file_format, train=9, validation=4, file_format=file_format)
    for train in (True, False):
        first, second = (
            opened(train, name="imagenet2012", dir=tmp_path / file_format)
            for file_format in ("array_record", "tfrecord")
        )
        assert content(first) == content(second)
        assert len(first) in (9, 4)


def frames(records):
    return b"".join(fabricate.tfrecord_frame(record) for record in records)


def test_the_index_of_a_tfrecord_file_is_kept_and_renewed(tmp_path, monkeypatch):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frames([b"a", b"", b"ccc"]))
    shard = tfrecord.TfrecordShard(path)
    assert [shard[i] for i in range(len(shard))] == [b"a", b"", b"ccc"]
    walked = []
    monkeypatch.setattr(tfrecord, "walk", lambda path: walked.append(path) or np.zeros(0, np.int64))
    assert len(tfrecord.TfrecordShard(path)) == 3
    assert not walked
    path.write_bytes(frames([b"a", b"", b"ccc", b"d"]))
    tfrecord.TfrecordShard(path)
    assert walked


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1], "record 2: the file is cut off"),
        (lambda whole: whole[:-20], "record 2: the file is cut off"),
        (lambda whole: whole[:5], "record 0: the file is cut off"),
        (lambda whole: b"\x01" + whole[1:], "record 0: no TFRecord header"),
        (
            lambda whole: whole + struct.pack("<Q", 2**63) + whole[:4],
            "record 3: no TFRecord header",
        ),
    ],
)
def test_a_damaged_tfrecord_file_is_refused(tmp_path, damage, message):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(damage(frames([b"first", b"second", b"third" * 9])))
    with pytest.raises(UserError, match=message):
        tfrecord.TfrecordShard(path)


def test_a_length_beyond_the_file_with_a_right_crc_is_refused(tmp_path):
    path, length = tmp_path / "x.tfrecord", struct.pack("<Q", 2**63)
    path.write_bytes(length + struct.pack("<I", tfrecord.masked_crc(length)) + b"rest")
    with pytest.raises(UserError, match="record 0: the file is cut off"):
        tfrecord.TfrecordShard(path)


def test_a_shard_that_changes_under_a_run_is_noticed(tmp_path):
    directory = fabricate.imagenet(tmp_path / "d", train=6, validation=2, file_format="tfrecord")
    source = opened(name="imagenet2012", dir=tmp_path / "d")
    assert source[0].label == 0
    shard = directory / "imagenet2012-train.tfrecord-00000-of-00002"
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(UserError, match=r"00000-of-00002, record 1: the file changed"):
        source[1]


def test_a_shard_with_fewer_records_than_stated_is_refused(tmp_path):
    directory = fabricate.imagenet(tmp_path / "d", train=6, validation=2)
    other = fabricate.imagenet(tmp_path / "e", train=4, validation=2)
    name = "imagenet2012-train.array_record-00000-of-00002"
    (directory / name).write_bytes((other / name).read_bytes())
    with pytest.raises(UserError, match="holds 2 records, not the 3"):
        opened(name="imagenet2012", dir=tmp_path / "d")[0]


def prepared(tree, output, **options):
    sources = {
        split: opened(split == "train", name="folder", dir=tree) for split in ("train", "val")
    }
    return prepare(sources, output, shard_examples=3, **options)


def test_shards_hold_the_folder_to_the_byte(tree, tmp_path):
    assert prepared(tree, tmp_path / "out") == {"train": 7, "val": 3}
    for train in (True, False):
        folder = opened(train, name="folder", dir=tree)
        shards = opened(train, name="shards", dir=tmp_path / "out")
        assert content(shards) == content(folder)
        assert (shards.classes, shards.split) == (folder.classes, folder.split)


def test_shrinking_bounds_the_short_side_and_spares_small_images(tree, tmp_path):
    prepared(tree, tmp_path / "out", short_side=32, quality=80)
    before, after = opened(name="folder", dir=tree), opened(name="shards", dir=tmp_path / "out")
    sizes = [Image.open(io.BytesIO(after[i].image)).size for i in range(7)]
    assert [min(size) for size in sizes] == [30, 31, 32, 32, 30, 31, 32]
    assert sizes[3] == (39, 32)
    assert [after[i].image == before[i].image for i in range(7)] == [
        True,
        True,
        True,
        False,
        True,
        True,
        True,
    ]


def test_preparing_goes_on_where_it_stopped(tree, tmp_path):
    count = []

    def stop_at_five(examples):
        count.append(examples)
        if len(count) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(tree, tmp_path / "out", num_threads=1, advance=stop_at_five)
    with pytest.raises(UserError, match=r"index\.json: no such file"):
        opened(name="shards", dir=tmp_path / "out")
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.array_record")}
    assert 1 <= len(finished) < 4
    assert not list((tmp_path / "out").glob("*.unfinished"))
    prepared(tree, tmp_path / "out")
    assert content(opened(name="shards", dir=tmp_path / "out")) == content(
        opened(name="folder", dir=tree)
    )
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())


def test_another_preparation_is_not_mixed_in(tree, tmp_path):
    prepared(tree, tmp_path / "out")
    with pytest.raises(UserError, match="holds shards with short_side None, not 64"):
        prepared(tree, tmp_path / "out", short_side=64)


def test_other_data_of_the_same_size_is_not_mixed_in(tmp_path):
    for first, root in ((0, "one"), (50, "two")):
        fabricate.folder_tree(tmp_path / root, {"train": {"a": images(first, 4)}})

    def pack(root, split):
        command.prepare("folder", str(tmp_path / root), str(tmp_path / "out"), splits=(split,))

    pack("one", "train[:2]")
    pack("one", "train[:2]")
    with pytest.raises(UserError, match=r"with splits \['train\[:2\]'\], not \['train\[2:\]'\]"):
        pack("one", "train[2:]")
    with pytest.raises(UserError, match=r"with data_dir .*/one, not .*/two;"):
        pack("two", "train[:2]")
    assert [x for x, _ in content(opened(name="shards", dir=tmp_path / "out"))] == images(0, 2)


def test_another_held_out_share_is_not_mixed_in(tmp_path):
    fabricate.folder_tree(tmp_path / "one", {"": {"a": images(0, 5)}})
    fields = ("folder", str(tmp_path / "one"), str(tmp_path / "out"))
    # One of five files is held out either way.
    command.prepare(*fields, eval_fraction=0.2)
    with pytest.raises(UserError, match=r"with eval_fraction 0\.2, not 0\.3"):
        command.prepare(*fields, eval_fraction=0.3)


@pytest.mark.parametrize("splits", [("train[:50%]", "train[50%:]"), ("val", "validation")])
def test_one_split_is_not_prepared_twice(tree, tmp_path, splits):
    with pytest.raises(
        UserError, match=rf"--splits={re.escape(','.join(splits))}: takes '.*' twice"
    ):
        command.prepare("folder", str(tree), str(tmp_path / "out"), splits=splits)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_dir": "gs://bucket/data"}, r"--data_dir = gs://bucket/data: .*mount the bucket"),
        (
            {"name": "imagenet_tars", "data_dir": "gs://bucket/data"},
            r"--data_dir = gs://bucket/data",
        ),
        ({"output_dir": "s3://bucket/out"}, r"--output_dir = s3://bucket/out: .*mount the bucket"),
        ({"eval_fraction": 2.0}, r"--eval_fraction=2\.0: must be below 1"),
        ({"name": "digits", "eval_fraction": 0.2}, r"--eval_fraction=0\.2: .*--source=folder only"),
    ],
)
def test_the_command_names_the_flag_that_is_wrong(tree, changes, message):
    given = {"name": "folder", "data_dir": str(tree), "output_dir": "unused", **changes}
    with pytest.raises(UserError, match=message):
        command.prepare(**given)


def test_a_bucket_is_no_directory_of_data():
    with pytest.raises(
        UserError, match=r"config\.data\.dir = gs://bucket/data: .*mount the bucket"
    ):
        data.check(settings(name="folder", dir="gs://bucket/data"))


def test_preparing_names_a_corrupt_image(tree, tmp_path):
    (tree / "train" / "b" / "image_0001.jpg").write_bytes(images(10, 1)[0][:300])
    with pytest.raises(UserError, match=r"b/image_0001\.jpg: no readable image"):
        prepared(tree, tmp_path / "out", short_side=16)


def test_damaged_shards_are_refused(tree, tmp_path):
    prepared(tree, tmp_path / "out")
    shard = tmp_path / "out" / "train-00001-of-00003.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"train-00001-of-00003.*bytes, but index\.json says"):
        opened(name="shards", dir=tmp_path / "out")
    shard.unlink()
    with pytest.raises(UserError, match="missing"):
        opened(name="shards", dir=tmp_path / "out")
    index = tmp_path / "out" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        opened(name="shards", dir=tmp_path / "out")
    index.write_text("{")
    with pytest.raises(UserError, match="is no index of shards"):
        opened(name="shards", dir=tmp_path / "out")


def test_the_command_prepares_parts_of_a_tfds_set(tmp_path, capsys):
    fabricate.imagenet(tmp_path / "d", train=10, validation=4)
    command.prepare(
        "imagenet2012",
        str(tmp_path / "d"),
        str(tmp_path / "o"),
        splits=("train[:50%]", "validation"),
    )
    assert "5 train, 4 validation" in capsys.readouterr().out
    whole = content(opened(name="imagenet2012", dir=tmp_path / "d"))
    assert content(opened(name="shards", dir=tmp_path / "o")) == whole[:5]
    with pytest.raises(UserError, match="--quality=0"):
        command.prepare("folder", None, "x", quality=0)
    with pytest.raises(UserError, match="all have one size and need no shards"):
        command.prepare("digits", None, str(tmp_path / "x"))


def test_imagenets_tars_are_read_in_place(tmp_path, monkeypatch):
    ids = fabricate.wordnet_ids()
    inner = []
    for place, wordnet_id in enumerate(ids[:3]):
        fabricate.tar(
            tmp_path / "class.tar",
            [(f"{wordnet_id}_{i}.JPEG", x) for i, x in enumerate(images(9 * place, 2))],
        )
        inner.append((f"{wordnet_id}.tar", (tmp_path / "class.tar").read_bytes()))
    fabricate.tar(tmp_path / "ILSVRC2012_img_train.tar", inner[::-1])
    fabricate.tar(
        tmp_path / "ILSVRC2012_img_val.tar", [("b.JPEG", b"second"), ("a.JPEG", b"first")]
    )
    answers = {"labels.txt": ids, "validation_labels.txt": [ids[7], ids[5]]}
    monkeypatch.setattr(tars, "_listed", answers.get)
    tree = {"name": "imagenet_tars", "dir": tmp_path}
    train, val = opened(True, **tree), opened(False, **tree)
    assert content(train) == [(x, place) for place in range(3) for x in images(9 * place, 2)]
    assert content(val) == [(b"first", 7), (b"second", 5)]
    assert len(train.classes) == 1000
    half, last = (
        opened(True, **tree, train_split="train[:50%]"),
        opened(True, **tree, train_split="val[-1:]"),
    )
    assert content(half) == content(train)[:3]
    assert content(last) == [(b"second", 5)]
    assert (half.split, last.split) == ("train[:50%]", "val[-1:]")
    with pytest.raises(
        UserError, match=r"train_split = 'test': no such split in ImageNet's tars.*train, val"
    ):
        opened(True, **tree, train_split="test")


def test_one_source_order_gives_one_order_of_labels(tree, tmp_path):
    """Folder, shards and both TFDS formats of the same images make the same batches."""
    prepared(tree, tmp_path / "out")
    examples = content(opened(name="folder", dir=tree))
    sources = [{"name": "folder", "dir": tree}, {"name": "shards", "dir": tmp_path / "out"}]
    for file_format in ("array_record", "tfrecord"):
        root = tmp_path / file_format
        fabricate.tfds_directory(
            root, {"train": examples}, name="x", classes=["a", "b"], file_format=file_format
        )
        sources.append({"name": "x", "dir": root})
    batches = []
    for fields in sources:
        fields = settings(**{**fields, "dir": str(fields["dir"])}, image_size=24)
        loader = data.Loader(
            data.open_source(fields, True), fields, batch_size=5, seed=3, train=True
        )
        batches.append([loader[number] for number in range(3)])
    for other in batches[1:]:
        for first, second in zip(batches[0], other, strict=True):
            assert all(np.array_equal(first[name], second[name]) for name in first)


def test_threads_may_share_a_source(tree, tmp_path):
    prepared(tree, tmp_path / "out")
    source = opened(name="shards", dir=tmp_path / "out")
    expected, wrong = content(source), []

    def read():
        for _ in range(50):
            wrong.extend(place for place in range(7) if content(source)[place] != expected[place])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_shards_of_a_part_that_lacks_whole_classes_remember_it(tree, tmp_path):
    command.prepare("folder", str(tree), str(tmp_path / "shards"), splits=["train[:50%]", "val"])
    fields = settings(name="shards", dir=str(tmp_path / "shards"))
    assert [data.open_source(fields, train).lacking_classes() for train in (True, False)] == [
        1,
        0,
    ]


def test_a_plan_that_was_cut_short_is_told(tree, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "plan.json").write_text("")
    with pytest.raises(UserError, match=r"plan.json: is damaged .* empty the directory"):
        command.prepare("folder", str(tree), str(tmp_path / "shards"))


def test_preparing_asks_for_its_directory_by_its_flag(tmp_path):
    with pytest.raises(UserError, match="--data_dir is missing"):
        command.prepare("folder", None, str(tmp_path / "shards"))


def test_a_corrupt_image_is_not_to_be_skipped_in_preparing(tree, tmp_path):
    (tree / "train" / "a" / "image_0001.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image_0001.jpg.* replace it and run"):
        command.prepare("folder", str(tree), str(tmp_path / "shards"), short_side=16)


def test_a_tfds_set_with_variants_is_found_by_its_plain_name(tmp_path):
    examples = {"train": [(fabricate.jpeg(0), 0)], "test": [(fabricate.jpeg(1), 1)]}
    fabricate.tfds_directory(tmp_path, examples, name="eurosat/rgb", classes=["a", "b"])
    assert len(opened(name="eurosat", dir=tmp_path)) == 1
    fabricate.tfds_directory(tmp_path, examples, name="eurosat/all", classes=["a", "b"])
    with pytest.raises(
        UserError, match=r"several of it; name one, such as eurosat/all \(all, rgb\)"
    ):
        opened(name="eurosat", dir=tmp_path)


def labels_of(directory, split="train"):
    source = opened(split == "train", name="shards", dir=directory)
    return [source[place].label for place in range(len(source))]


def pack(tree, output):
    command.prepare("folder", str(tree), str(output), splits=["train"], shard_examples=3)


def test_an_image_that_moved_to_its_right_class_is_packed_again(tree, tmp_path, capsys):
    pack(tree, tmp_path / "out")
    kept = tmp_path / "out" / "train-00000-of-00003.array_record"
    before = kept.stat().st_mtime_ns
    (tree / "train" / "a" / "image_0003.jpg").rename(tree / "train" / "b" / "image_0000a.jpg")
    pack(tree, tmp_path / "out")
    shards = opened(name="shards", dir=tmp_path / "out")
    assert content(shards) == content(opened(name="folder", dir=tree))
    assert kept.stat().st_mtime_ns == before
    said = capsys.readouterr()
    line = "have changed: 1 (train-00001-of-00003.array_record)"
    assert line in said.out + said.err


def test_a_rename_between_two_tries_packs_no_image_twice(tree, tmp_path):
    done = []

    def stop(examples):
        done.append(examples)
        if len(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(tree, tmp_path / "out", num_threads=1, advance=stop)
    assert list((tmp_path / "out").glob("*.array_record"))
    (tree / "train" / "a" / "image_0000.jpg").rename(tree / "train" / "a" / "zzz.jpg")
    said = []
    prepared(tree, tmp_path / "out", say=said.append)
    assert content(opened(name="shards", dir=tmp_path / "out")) == content(
        opened(name="folder", dir=tree)
    )
    (line,) = said
    assert "train-00000-of-00003.array_record" in line


@pytest.mark.parametrize("change", ["added", "gone"])
def test_another_number_of_images_leaves_no_old_shard(tree, tmp_path, change):
    pack(tree, tmp_path / "out")
    if change == "added":
        for i in range(4):
            (tree / "train" / "b" / f"new{i}.jpg").write_bytes(images(90 + i, 1)[0])
    else:
        for i in range(3):
            (tree / "train" / "a" / f"image_000{i}.jpg").unlink()
    pack(tree, tmp_path / "out")
    assert content(opened(name="shards", dir=tmp_path / "out")) == content(
        opened(name="folder", dir=tree)
    )
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.array_record"))
    count = {"added": 4, "gone": 2}[change]
    assert shards == [f"train-{n:05d}-of-{count:05d}.array_record" for n in range(count)]


def test_what_a_killed_preparation_left_is_removed(tree, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train-00000-of-00099.unfinished").write_bytes(b"half")
    pack(tree, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.unfinished"))


def test_shards_without_a_digest_of_their_images_are_made_again(tree, tmp_path):
    pack(tree, tmp_path / "out")
    note = tmp_path / "out" / "train-00001-of-00003.json"
    found = json.loads(note.read_text())
    del found["ingredients"]
    for text in (json.dumps(found), "", "[1]"):
        note.write_text(text)
        pack(tree, tmp_path / "out")
        assert json.loads(note.read_text())["ingredients"]
        assert labels_of(tmp_path / "out") == [0, 0, 0, 0, 1, 1, 1]


def test_readers_are_refused_while_shards_are_made_again(tree, tmp_path):
    pack(tree, tmp_path / "out")
    (tree / "train" / "a" / "image_0003.jpg").write_bytes(b"no image, and of another size")
    with pytest.raises(UserError, match="no readable image"):
        prepare({"train": opened(name="folder", dir=tree)}, tmp_path / "o2", short_side=16)

    def stop_in_the_shard_that_is_made(examples):
        if examples == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(
            {"train": opened(name="folder", dir=tree)},
            tmp_path / "out",
            shard_examples=3,
            num_threads=1,
            origin=json.loads((tmp_path / "out" / "plan.json").read_text()),
            advance=stop_in_the_shard_that_is_made,
        )
    with pytest.raises(UserError, match=r"index\.json: no such file"):
        opened(name="shards", dir=tmp_path / "out")


def test_prepared_shards_know_which_classes_have_no_image(tree, tmp_path):
    (tree / "val" / "b" / "image_0000.jpg").unlink()
    command.prepare("folder", str(tree), str(tmp_path / "out"))
    train, val = (opened(train, name="shards", dir=tmp_path / "out") for train in (True, False))
    assert (train.missing_classes(), val.missing_classes()) == ((), ("b",))
    index = tmp_path / "out" / "index.json"
    found = json.loads(index.read_text())
    del found["splits"]["val"]["counts"]
    index.write_text(json.dumps(found))
    assert opened(False, name="shards", dir=tmp_path / "out").missing_classes() == ()
    found["splits"]["val"]["counts"] = [1]
    index.write_text(json.dumps(found))
    with pytest.raises(UserError, match="counts of other classes"):
        opened(False, name="shards", dir=tmp_path / "out")


def test_several_forms_of_cifar_are_not_chosen_between(tmp_path):
    fabricate.cifar_directory(tmp_path / "cifar-10-batches-bin")
    assert len(opened(name="cifar", dir=tmp_path).classes) == 10
    fabricate.cifar_directory(tmp_path / "cifar-100-python", "python", 100)
    with pytest.raises(UserError, match=r"holds binary CIFAR-10 in .*, Python CIFAR-100 in .*name"):
        opened(name="cifar", dir=tmp_path)
    assert len(opened(name="cifar", dir=tmp_path / "cifar-100-python").classes) == 100


def test_a_flipped_label_in_a_tfrecord_is_found_by_its_checksum(tmp_path):
    directory = fabricate.imagenet(tmp_path / "d", train=6, validation=2, file_format="tfrecord")
    source = opened(name="imagenet2012", dir=tmp_path / "d")
    label = source[1].label
    shard = directory / "imagenet2012-train.tfrecord-00000-of-00002"
    whole, record = shard.read_bytes(), source._records[1]
    # The label is a varint at the end of its field's name in the protocol buffer.
    place = record.index(b"label") + len(b"label") + 6
    changed = record[:place] + bytes([record[place] ^ 1]) + record[place + 1 :]
    assert int(source._parse(changed)["label"]) != label
    shard.write_bytes(whole.replace(record, changed))
    fresh = opened(name="imagenet2012", dir=tmp_path / "d")
    with pytest.raises(UserError, match=r"00000-of-00002, record 1: its checksum is not that"):
        fresh[1]
    fields = settings(name="imagenet2012", dir=str(tmp_path / "d"), on_error="skip", image_size=16)
    loader = data.Loader(fresh, fields, batch_size=6, seed=0, train=False)
    assert loader[0]["mask"].tolist() == [True, False, True, True, True, True]
