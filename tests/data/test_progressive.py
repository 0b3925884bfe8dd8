"""Images that grow with the epochs: each batch is that of a loader of its size, by its number."""

import fabricate
import jax
import numpy as np
import pytest
from data_settings import settings
from running import tiny_recipe

from resnet_jax import UserError, data
from resnet_jax.distributed.mesh import make_mesh, shard_batch
from resnet_jax.experiment import Experiment

SIZES, EPOCHS, LAST = (16, 24), (0.5, 2.0), 32
BATCH_SIZE, STEPS_PER_EPOCH, TOTAL = 8, 3, 9
SIDES = [16, 16, 24, 24, 24, 24, 32, 32, 32]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    fabricate.imagenet(root, train=BATCH_SIZE * STEPS_PER_EPOCH, validation=4)
    return {"name": "imagenet2012", "dir": str(root)}


def open_loader(fields, sizes=SIZES, epochs=EPOCHS, say=None, size=LAST, **process):
    changes = {"image_size": size, "progressive_sizes": sizes, "progressive_epochs": epochs}
    config = settings(**fields, **changes)

    def open_at(size, say):
        own = config if size is None else settings(**{**fields, "image_size": size})
        source = data.open_source(own, train=True)
        options = {"batch_size": BATCH_SIZE, "seed": 3, "train": True, "say": say}
        return data.Loader(source, own, **options, **process)

    return data.grown(open_at, config, say)


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        np.testing.assert_array_equal(batch[name], other[name])


def test_batches_grow_at_their_epochs_and_are_otherwise_those_of_one_size(imagenet):
    loader = open_loader(imagenet)
    with data.Prefetcher(loader, 0, TOTAL, lambda batch: batch) as batches:
        straight = dict(batches)
    assert [straight[number]["image"].shape[1] for number in range(TOTAL)] == SIDES
    assert loader.stretches(TOTAL) == [
        (2, (16, 16, 3)),
        (6, (24, 24, 3)),
        (9, (32, 32, 3)),
    ]
    assert loader.stretches(5) == [(2, (16, 16, 3)), (5, (24, 24, 3))]
    for number in (6, 1, 2, 8):  # as a run does that goes on there
        plain = open_loader(imagenet, (), (), size=SIDES[number])
        assert_same(loader[number], straight[number])
        assert_same(loader[number], plain[number])
        plain.close()
    loader.close()


def test_processes_and_devices_share_a_batch_of_every_size(imagenet):
    whole = open_loader(imagenet)
    halves = [open_loader(imagenet, process_index=i, process_count=2) for i in range(2)]
    meshes = [make_mesh(jax.devices()[:count]) for count in (1, 8)]
    for number in (1, 2, 6):
        parts = [half[number] for half in halves]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert_same(joined, whole[number])
        for mesh in meshes:
            assert_same(jax.device_get(shard_batch(mesh, whole[number])), joined)
    for loader in (whole, *halves):
        loader.close()


def test_files_are_listed_once_for_all_sizes(tmp_path):
    images = {name: [fabricate.jpeg(seed) for seed in range(8)] for name in ("a", "b")}
    fabricate.folder_tree(tmp_path, {"train": images, "val": images})
    fields = {"name": "folder", "dir": str(tmp_path), "image_size": LAST}
    fields |= {"progressive_sizes": SIZES, "progressive_epochs": EPOCHS}
    config = tiny_recipe(batch_size=8, **{f"data__{name}": value for name, value in fields.items()})
    loader = Experiment(config).train_loader
    assert len(loader.stretches(TOTAL)) == 3
    assert len({id(each.source) for each in loader._loaders}) == 1
    loader.close()


def test_images_in_memory_grow_too():
    loader = open_loader({"name": "digits"}, sizes=(4,), epochs=(1.0,))
    assert [loader[number]["image"].shape[1:] for number in (0, len(loader))] == [
        (4, 4, 1),
        (LAST, LAST, 1),
    ]
    loader.close()


def test_what_is_to_be_known_of_the_data_is_said_once(imagenet):
    lines = []
    open_loader({**imagenet, "eval_fraction": 0.1}, say=lines.append).close()
    assert len(lines) == len(set(lines)) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"progressive_epochs": (1.0,)}, "must have one number for each"),
        ({"image_size": None}, "config.data.image_size must be set"),
        ({"progressive_sizes": (24, 16)}, r"\(24, 16, 32\): must increase up to image_size"),
        ({"image_size": 24}, r"\(16, 24, 24\): must increase up to image_size"),
        ({"progressive_epochs": (2.0, 2.0)}, "config.data.progressive_epochs = .* must increase"),
    ],
)
def test_sizes_that_do_not_lead_up_to_the_last_are_refused(fields, words):
    good = {"image_size": LAST, "progressive_sizes": SIZES, "progressive_epochs": EPOCHS}
    with pytest.raises(UserError, match=words) as error:
        data.check(settings(**{**good, **fields}))
    assert "\n" not in str(error.value)
