"""Batches: pure functions of their number, every example counted as it should be."""

import collections
import functools
import gc
import io
import threading
import time

import fabricate
import jax
import numpy as np
import pytest
from data_settings import settings
from PIL import Image

from resnet_jax import UserError, data
from resnet_jax.data import shuffle
from resnet_jax.data.images import decode, geometry
from resnet_jax.data.images.transform import Transform
from resnet_jax.seeds import seed_words

FROZEN = [2, 4, 6, 7, 0, 8, 1, 3, 5, 9]
FROZEN_IMAGENET = [204605, 666122, 1084307]


def loader(
    train=True,
    batch_size=32,
    seed=0,
    process_index=0,
    process_count=1,
    pad_to=1,
    say=None,
    **changes,
):
    config = settings(**changes)
    return data.Loader(
        data.open_source(config, train),
        config,
        batch_size=batch_size,
        seed=seed,
        train=train,
        process_index=process_index,
        process_count=process_count,
        pad_to=pad_to,
        say=say,
    )


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    fabricate.imagenet(root, train=24, validation=10)
    return {"name": "imagenet2012", "dir": str(root), "image_size": 32}


@pytest.mark.parametrize("length", [1, 2, 3, 7, 10, 97, 100, 1000, 12345])
def test_an_epoch_is_a_permutation(length):
    whole = shuffle.permuted(np.arange(length), length, seed=3, epoch=5)
    assert np.array_equal(np.sort(whole), np.arange(length))
    some = np.arange(0, length, 3)
    assert np.array_equal(shuffle.permuted(some, length, seed=3, epoch=5), whole[some])


def test_the_order_is_frozen():
    assert shuffle.permuted(np.arange(10), 10, seed=0, epoch=0).tolist() == FROZEN
    assert shuffle.permuted(np.arange(3), 1_281_167, seed=1, epoch=89).tolist() == FROZEN_IMAGENET


def test_places_are_uniform_and_neighbours_part():
    runs = np.array(
        [
            shuffle.permuted(np.arange(10), 10, seed, epoch)
            for seed in range(40)
            for epoch in range(100)
        ]
    )
    counts = np.array(
        [[np.sum(runs[:, place] == value) for value in range(10)] for place in range(10)]
    )
    # Chi-square with 81 degrees of freedom: 130 is passed by chance less than once in 2,000.
    assert ((counts - 400) ** 2 / 400).sum() < 130
    big = shuffle.permuted(np.arange(100_000), 100_000, 0, 0)
    assert abs(np.corrcoef(big[:-1], big[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(big, np.arange(100_000))[0, 1]) < 0.02


def test_training_visits_each_example_at_most_once_an_epoch():
    batches = loader(batch_size=100)
    assert len(batches) == 14
    for epoch in range(2):
        seen = np.concatenate([batches[b]["index"] for b in range(14 * epoch, 14 * epoch + 14)])
        assert len(set(seen.tolist())) == 1400
    assert set(batches[14]["epoch"].tolist()) == {1}
    assert not np.array_equal(batches[0]["index"], batches[14]["index"])


def test_a_batch_is_what_its_indices_say():
    batches = loader(batch_size=16)
    batch = batches[3]
    assert np.array_equal(batch["image"], batches.source.images[batch["index"]])
    assert np.array_equal(batch["label"], batches.source.labels[batch["index"]])
    kinds = {name: (value.dtype.name, value.shape) for name, value in batch.items()}
    assert kinds == {
        "image": ("uint8", (16, 8, 8, 1)),
        "label": ("int32", (16,)),
        "mask": ("bool", (16,)),
        "index": ("int32", (16,)),
        "epoch": ("int32", (16,)),
    }


@pytest.mark.parametrize(
    ("batch_size", "pad_to", "rows", "batches"),
    [(100, 8, 104, 4), (355, 1, 355, 1), (1000, 8, 1000, 1), (7, 1, 7, 51)],
)
def test_evaluation_counts_each_example_once(batch_size, pad_to, rows, batches):
    evaluation = loader(train=False, batch_size=batch_size, pad_to=pad_to)
    assert len(evaluation) == batches
    found = [evaluation[b] for b in range(batches)]
    assert {len(batch["label"]) for batch in found} == {rows}
    seen = np.concatenate([batch["index"][batch["mask"]] for batch in found])
    assert np.array_equal(seen, np.arange(355))
    assert not found[-1]["image"][~found[-1]["mask"]].any()


@pytest.mark.parametrize("train", [True, False])
def test_processes_share_a_batch(imagenet, train):
    whole = loader(train, 8, **imagenet)[1]
    halves = [loader(train, 8, process_index=p, process_count=2, **imagenet)[1] for p in range(2)]
    for name, value in whole.items():
        assert np.array_equal(value, np.concatenate([half[name] for half in halves])), name


def test_encoded_batches_repeat_exactly(imagenet):
    first, second = (
        loader(True, 8, num_threads=1, **imagenet),
        loader(True, 8, num_threads=3, **imagenet),
    )
    for number in (0, 2, 3, 7):
        for name, value in first[number].items():
            assert np.array_equal(value, second[number][name]), (number, name)
    other = loader(True, 8, seed=1, **imagenet)[0]
    assert not np.array_equal(first[0]["image"], other["image"])


def test_a_batch_is_begun_while_another_ends(imagenet, monkeypatch):
    batches = loader(True, 24, num_threads=2, **imagenet)
    later, waited = threading.Event(), []

    def made(self, image, where, views):
        ((epoch, place, _),) = views
        if epoch == 1:
            later.set()
        elif place == 5:
            waited.append(later.wait(20))
        return [np.full(batches.image_shape, place, np.uint8)]

    monkeypatch.setattr(Transform, "__call__", made)
    with data.Prefetcher(batches, 0, 2, lambda batch: batch) as feed:
        found = [batch for _, batch in feed]
    assert waited == [True]
    for epoch, batch in enumerate(found):
        assert set(batch["epoch"].tolist()) == {epoch}
        assert np.array_equal(batch["image"][:, 0, 0, 0], batch["index"])


def test_evaluation_decodes_colour_in_full(imagenet):
    batches = loader(False, 10, **imagenet)
    choose = functools.partial(geometry.central_part, size=32, share=0.875)
    for place, image in enumerate(batches[0]["image"]):
        encoded = batches.source[place].image
        assert np.array_equal(image, decode.part(encoded, 32, choose, "here", finest=2.0))


def test_an_example_is_cropped_anew_each_epoch(imagenet):
    batches = loader(True, 24, **imagenet)
    crops = collections.defaultdict(set)
    for number in range(4):
        batch = batches[number]
        for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
            crops[index].add(image.tobytes())
    assert all(len(versions) == 4 for versions in crops.values())


def test_repeats_show_an_image_several_times_in_a_batch_each_cropped_anew(imagenet):
    batches = loader(True, 8, repeats=2, **imagenet)
    for epoch in range(2):
        seen = collections.Counter()
        for number in range(3 * epoch, 3 * epoch + 3):
            batch = batches[number]
            views = list(zip(batch["index"].tolist(), batch["copy"].tolist(), strict=True))
            assert sorted(views) == sorted((i, c) for i in {i for i, _ in views} for c in (0, 1))
            assert len({image.tobytes() for image in batch["image"]}) == 8
            pairs = batch["index"].reshape(4, 2)
            assert (pairs[:, 0] != pairs[:, 1]).all(), "an image would be mixed with itself"
            seen.update(batch["index"].tolist())
        assert list(seen.values()) == [2] * 12


def test_repeats_that_do_not_divide_the_batch_go_on_in_the_next():
    batches = loader(batch_size=32, repeats=3)
    views = collections.Counter()
    for number in range(3):
        batch = batches[number]
        views.update(zip(batch["index"].tolist(), batch["copy"].tolist(), strict=True))
        assert (batch["index"][::2] != batch["index"][1::2]).all()
    assert set(views.values()) == {1}
    assert set(views) == {(index, copy) for index, _ in views for copy in range(3)}


def test_a_view_is_the_same_decoded_alone_or_beside_others(imagenet):
    repeated, plain = loader(True, 8, repeats=2, **imagenet)[0], loader(True, 24, **imagenet)[0]
    alone = dict(zip(plain["index"].tolist(), plain["image"], strict=True))
    rows = zip(repeated["index"].tolist(), repeated["copy"], repeated["image"], strict=True)
    for index, copy, image in rows:
        assert np.array_equal(image, alone[index]) == (copy == 0)


def test_an_unreadable_image_leaves_all_its_rows_out(imagenet, monkeypatch):
    batches = loader(True, 8, repeats=2, on_error="skip", max_skipped=0.5, **imagenet)
    whole = batches[0]
    lost = int(whole["index"][0])
    read = type(batches.source).__getitem__

    def broken(self, place):
        if place == lost:
            raise decode.CorruptImageError("lost")
        return read(self, place)

    monkeypatch.setattr(type(batches.source), "__getitem__", broken)
    batch = batches[0]
    assert np.array_equal(batch["mask"], whole["index"] != lost)
    assert np.array_equal(batch["image"][batch["mask"]], whole["image"][batch["mask"]])
    assert len({image.tobytes() for image in batch["image"]}) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 16}, "config.data.repeats = 16: 32 rows would show .* take at most 8"),
        ({"flip_mode": "alternating"}, "flips are off for images in memory; set config.data.flip"),
    ],
)
def test_augmentations_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        loader(**changes)


def test_a_split_smaller_than_the_batch_names_both_numbers():
    with pytest.raises(
        UserError, match=r"config.batch_size = 2000: more than the 1442 training examples"
    ):
        loader(batch_size=2000)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(
        UserError, match=r"config.batch_size = 9: must be divisible by the 2 processes"
    ):
        loader(batch_size=9, process_count=2)
    with pytest.raises(UserError, match=r"config.batch_size = 9: must be even"):
        loader(batch_size=9, mixup=0.2)


def corrupt(root):
    good = [(fabricate.jpeg(i), i) for i in range(8)]
    fabricate.tfds_directory(root, {"train": good[:5] + [(b"\xff\xd8 no image", 5)] + good[6:]})
    return {"name": "imagenet2012", "dir": str(root), "image_size": 16}


def test_a_corrupt_image_stops_with_its_file_and_record(tmp_path):
    batches = loader(True, 8, **corrupt(tmp_path))
    with pytest.raises(UserError, match=r"00001-of-00002, record 1: no readable image"):
        batches[0]


def test_a_corrupt_image_is_masked_when_asked_and_shows_another_in_training(tmp_path):
    fields = corrupt(tmp_path)
    batches = loader(True, 8, on_error="skip", **fields)
    for epoch in range(3):
        batch = batches[epoch]
        assert batch["index"][~batch["mask"]].tolist() == [5]
        assert batch["image"][~batch["mask"]].any()
    assert list(batches.skipped) == [5]
    scored = loader(False, 8, on_error="skip", eval_split="train", **fields)[0]
    assert scored["mask"].tolist() == [True] * 5 + [False] + [True] * 2
    assert not scored["image"][5].any()


@pytest.mark.parametrize("where", ["files", "memory"])
def test_a_skipped_row_is_that_of_a_run_whose_file_was_replaced(tmp_path, monkeypatch, where):
    """Images, and so the statistics of BatchNorm, are those of a run that is given the substitute."""
    size = 20
    pixels = np.random.default_rng(0).integers(0, 256, (size, 12, 12, 3), np.uint8)
    files = [fabricate.encoded(image, "PNG") for image in pixels]
    shape = (12, 12, 3) if where == "memory" else (None, None, 3)
    fields = {"name": "x", "image_size": 12, "num_threads": 3, "on_error": "skip"}
    fields["random_resized_crop"] = where == "files"
    damaged = {3, 11}

    def batches(root, files):
        examples = [(file, i % 2) for i, file in enumerate(files)]
        fabricate.tfds_directory(
            root, {"train": examples}, name="x", classes=["a", "b"], shape=shape
        )
        return loader(True, 5, dir=str(root), max_skipped=0.2, **fields)

    broken = batches(
        tmp_path / "broken", [b"no image" if i in damaged else f for i, f in enumerate(files)]
    )
    for epoch in range(2):
        order = shuffle.permuted(np.arange(size), size, 0, epoch).tolist()
        given = list(files)
        for place in damaged:
            after = (order * 2)[order.index(place) + 1 :]
            given[place] = files[next(p for p in after if p not in damaged)]
        replaced = batches(tmp_path / f"given{epoch}", given)
        for number in range(4 * epoch, 4 * epoch + 4):
            ours, theirs = broken[number], replaced[number]
            assert np.array_equal(ours["image"], theirs["image"])
            assert np.array_equal(ours["index"], theirs["index"])
            assert set(ours["index"][~ours["mask"]].tolist()) <= damaged
            assert np.array_equal(ours["label"], np.where(ours["mask"], theirs["label"], 0))
    assert set(broken.skipped) == damaged


def test_too_many_unreadable_images_stop_the_run(tmp_path):
    good = [(fabricate.jpeg(i), i) for i in range(8)]
    broken = [(b"no image", place) for place in (1, 4)]
    examples = [*good[:1], broken[0], *good[2:4], broken[1], *good[5:]]
    fabricate.tfds_directory(tmp_path, {"train": examples})
    fields = {"name": "imagenet2012", "dir": str(tmp_path), "image_size": 16, "on_error": "skip"}
    with pytest.raises(
        UserError, match=r"max_skipped = 0\.01: 2 of the 8 images .* cannot be read"
    ):
        loader(True, 8, **fields)[0]
    assert (~loader(True, 8, max_skipped=0.25, **fields)[0]["mask"]).sum() == 2


@pytest.mark.parametrize("train", [True, False])
def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path, train):
    fabricate.tfds_directory(tmp_path, {"train": [(b"no image", i) for i in range(4)]})
    fields = {"name": "imagenet2012", "dir": str(tmp_path), "image_size": 16}
    batches = loader(
        train, 2, on_error="skip", max_skipped=0.99, eval_split="train", num_threads=1, **fields
    )
    with pytest.raises(UserError, match="4 of the 4 images"):
        list(map(batches.__getitem__, range(2)))


def test_an_image_may_have_more_pixels_where_the_recipe_says_so(tmp_path):
    fabricate.folder_tree(tmp_path, {"train": {"a": [fabricate.jpeg(0, 40, 60)] * 2}})
    fields = {"name": "folder", "dir": str(tmp_path), "image_size": 8}
    assert loader(True, 2, max_pixels=2400, **fields)[0]["mask"].all()
    with pytest.raises(UserError, match="60 x 40 pixels, more than config"):
        loader(True, 2, max_pixels=2399, **fields)[0]


def test_each_skipped_image_is_told_of_once(tmp_path):
    said = []
    batches = loader(True, 8, on_error="skip", say=said.append, num_threads=4, **corrupt(tmp_path))
    for epoch in range(3):
        assert not batches[epoch]["mask"].all()
    (line,) = said
    assert line == f"skipped {batches.skipped[5]}"
    assert "00001-of-00002, record 1: no readable image" in line
    assert "on_error" not in line
    assert "\n" not in line


def test_a_feed_yields_the_batches_in_order():
    batches = loader(batch_size=64)
    with data.Prefetcher(batches, 3, 9, lambda batch: batch["index"]) as feed:
        found = list(feed)
    assert [number for number, _ in found] == list(range(3, 9))
    assert all(np.array_equal(index, batches[number]["index"]) for number, index in found)


def test_a_feed_raises_what_its_thread_raised():
    def put(batch):
        raise OSError("device lost")

    with data.Prefetcher(loader(), 0, 9, put) as feed, pytest.raises(OSError, match="device lost"):
        next(iter(feed))


def test_a_feed_works_ahead_but_not_further():
    made = []
    feed = data.Prefetcher(loader(), 0, 40, lambda batch: made.append(1), prefetch=3)
    while len(made) < 4:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(made) == 4
    feed.close()


def test_closing_a_feed_ends_its_threads_in_the_middle_of_a_batch(imagenet, monkeypatch):
    gc.collect()  # ends the threads of loaders that earlier tests have left
    slow = loader(True, 24, **imagenet)
    decoding, decoded = threading.Event(), []

    def crawl(self, *_):
        decoding.set()
        decoded.append(1)
        time.sleep(0.05)
        return [np.zeros(slow.image_shape, np.uint8)]

    monkeypatch.setattr(Transform, "__call__", crawl)
    before = threading.active_count()
    feed = data.Prefetcher(slow, 0, 100, lambda batch: batch)
    decoding.wait()
    feed.close()
    feed.close()
    assert len(decoded) < 24
    slow.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {"flip_mode": "alternating", "policy": "trivialaugment_wide"},
        {"repeats": 2, "policy": "randaugment", "color_jitter": (0.4, 0.4, 0.4, 0.1)},
    ],
)
def test_a_broken_run_sees_what_an_undisturbed_one_sees(imagenet, processes, changes):
    """Index, crop and device augmentation, from any batch on, with any number of processes."""
    config = settings(**imagenet, flip=True, random_erasing=0.5, **changes)
    source = data.open_source(config, True)
    augment = jax.jit(
        functools.partial(data.make_augment(config, source, 1000), seed=seed_words(0))
    )

    def run(start, stop):
        shares = [
            data.Loader(
                source,
                config,
                batch_size=8,
                seed=0,
                train=True,
                process_index=process,
                process_count=processes,
            )
            for process in range(processes)
        ]
        feeds = [data.Prefetcher(share, start, stop, lambda batch: batch) for share in shares]
        for parts in zip(*feeds, strict=True):
            whole = {
                name: np.concatenate([part[name] for _, part in parts]) for name in parts[0][1]
            }
            yield whole["index"].tolist(), np.asarray(augment(whole)[0])

    undisturbed = list(run(0, 7))
    for broken in (1, 3, 5):
        for (index, images), (again, same) in zip(
            undisturbed[broken:], run(broken, 7), strict=True
        ):
            assert index == again
            assert np.array_equal(images, same)


def test_batch_memory_is_used_again_but_never_while_held(imagenet):
    batches = loader(True, 8, **imagenet)
    held = [batches[number]["image"] for number in range(5)]
    copies = [image.copy() for image in held]
    views = [image[2:4] for image in held]
    places = {image.ctypes.data for image in held}
    assert len(places) == 5
    del held
    for number in range(5, 10):
        assert batches[number]["image"].ctypes.data not in places
    assert all(np.array_equal(view, copy[2:4]) for view, copy in zip(views, copies, strict=True))
    del views
    assert batches[0]["image"].ctypes.data in places


def test_images_in_memory_are_cropped_at_random_anew_in_each_epoch_from_the_whole_image():
    batches = loader(True, 16, random_resized_crop=True, image_size=12)
    assert batches.source.image_shape == (8, 8, 1)
    first = batches[0]
    assert first["image"].shape == (16, 12, 12, 1)
    again = next(
        batch["image"][batch["index"] == first["index"][0]]
        for batch in map(batches.__getitem__, range(len(batches), 2 * len(batches)))
        if first["index"][0] in batch["index"]
    )
    assert not np.array_equal(first["image"][0], again[0])


def test_images_too_many_to_keep_resized_are_resized_batch_by_batch(monkeypatch):
    whole = loader(False, 16, image_size=12)[1]
    monkeypatch.setattr("resnet_jax.data.IN_MEMORY_BYTES", 1000)
    streamed = loader(False, 16, image_size=12)
    assert streamed.source.image_shape == (8, 8, 1)
    assert np.array_equal(streamed[1]["image"], whole["image"])


@pytest.mark.parametrize("image_size", [None, 12])
def test_images_in_memory_have_an_evaluation_size_of_their_own(monkeypatch, image_size):
    fields = {"image_size": image_size, "eval_size": 16, "interpolation": "bicubic"}
    side = image_size or 8
    assert loader(True, 16, **fields)[0]["image"].shape == (16, side, side, 1)
    scored = loader(False, 16, **fields)
    assert scored.image_shape == (16, 16, 1)
    own = data.open_source(settings(), False)
    expected = [
        np.asarray(
            Image.fromarray(own[place].image[..., 0]).resize((16, 16), Image.Resampling.BICUBIC)
        )
        for place in scored[0]["index"]
    ]
    assert np.abs(scored[0]["image"][..., 0].astype(int) - np.stack(expected)).mean() <= 1
    monkeypatch.setattr("resnet_jax.data.IN_MEMORY_BYTES", 1000)
    streamed = loader(False, 16, **fields)
    assert streamed.source.image_shape == (8, 8, 1)
    assert np.array_equal(streamed[0]["image"], scored[0]["image"])


def test_grey_encoded_images_of_one_size_are_cropped_grey(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_jax.data.sources.tfds.IN_MEMORY_BYTES", 100)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    examples = [(fabricate.encoded(image, "PNG"), label % 3) for label, image in enumerate(pixels)]
    fabricate.tfds_directory(
        tmp_path, {"train": examples}, name="x", classes=["a", "b", "c"], shape=(8, 8, 1)
    )
    for changes in ({"image_size": 4}, {"random_resized_crop": True}):
        batch = loader(True, 4, name="x", dir=str(tmp_path), **changes)[0]
        assert batch["image"].shape == (4, *2 * (changes.get("image_size", 8),), 1)
        assert batch["image"].std() > 10


def test_a_large_set_of_one_image_size_is_streamed(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 7, 3), np.uint8)
    examples = [(fabricate.encoded(image, "PNG"), label % 3) for label, image in enumerate(pixels)]
    fabricate.tfds_directory(
        tmp_path, {"train": examples}, name="x", classes=["a", "b", "c"], shape=(6, 7, 3)
    )
    monkeypatch.setattr("resnet_jax.data.sources.tfds.IN_MEMORY_BYTES", 100)
    batch = loader(True, 5, name="x", dir=str(tmp_path))[0]
    assert np.array_equal(batch["image"], pixels[batch["index"]])


def test_evaluation_has_a_size_a_crop_and_a_filter_of_its_own(tmp_path):
    pictures = {"a": [fabricate.jpeg(0, 60, 90)], "b": [fabricate.jpeg(1, 90, 60)]}
    fabricate.folder_tree(tmp_path, {"train": pictures, "val": pictures})
    config = settings(name="folder", dir=str(tmp_path), image_size=24, eval_size=32,
                           eval_crop=1.0, eval_crop_mode="squash", interpolation="bicubic")  # fmt: skip
    shapes = {}
    for train in (True, False):
        loader = data.Loader(
            data.open_source(config, train), config, batch_size=2, seed=0, train=train
        )
        batch = loader[0]["image"]
        shapes[train] = batch.shape[1:]
        loader.close()
    assert shapes == {True: (24, 24, 3), False: (32, 32, 3)}
    for row, number in enumerate((0, 1)):
        original = Image.open(io.BytesIO(pictures["ab"[number]][0]))
        whole = original.resize((32, 32), Image.Resampling.BICUBIC)
        assert np.abs(batch[row].astype(int) - np.asarray(whole, int)).mean() <= 1
