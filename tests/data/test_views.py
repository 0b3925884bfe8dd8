"""What people look at: the grid of a batch, and the line on a starving device."""

import functools

import numpy as np
import pytest
from data_settings import settings
from PIL import Image

from resnet_jax import data
from resnet_jax.seeds import seed_words


def loader(train=True, **changes):
    config = settings(**changes)
    return (
        data.Loader(data.open_source(config, train), config, batch_size=10, seed=0, train=train),
        config,
    )


def test_the_grid_shows_the_images_of_the_batch(tmp_path):
    batches, _ = loader()
    data.save_grid(batches, 3, tmp_path / "batch.png")
    picture = np.asarray(Image.open(tmp_path / "batch.png"))
    assert picture.shape == (3 * (96 + 16), 4 * 98, 3)
    for place, image in enumerate(batches[3]["image"]):
        top, left = place // 4 * 112, place % 4 * 98
        assert np.array_equal(picture[top : top + 96 : 12, left : left + 96 : 12, 0], image[..., 0])
        assert (picture[top + 97 : top + 110, left : left + 96] < 128).any(), "no caption"


def test_the_grid_can_show_what_augmentation_makes(tmp_path):
    batches, config = loader(flip=True, mixup=0.5)
    augment = functools.partial(data.make_augment(config, batches.source, 10), seed=seed_words(0))
    data.save_grid(batches, 0, tmp_path / "plain.png")
    data.save_grid(batches, 0, tmp_path / "mixed.png", augment)
    plain, mixed = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plain", "mixed"))
    assert plain.shape == mixed.shape
    assert not np.array_equal(plain, mixed)
    normalise = data.make_normalise(config, batches.source)

    def evaluation(batch):
        return normalise(batch["image"]), np.eye(10)[batch["label"]]

    data.save_grid(batches, 0, tmp_path / "same.png", evaluation)
    assert np.array_equal(plain, np.asarray(Image.open(tmp_path / "same.png")))


class Reading:
    wait, busy, made = 6.0, 10.0, 6100


@pytest.mark.parametrize(
    ("seconds", "images", "line"),
    [
        (
            10.0,
            5800,
            (
                "60% of the time went into waiting for data: the data pipeline makes 610 images/s,"
                " the device "
            ),
        ),
        (61.0, 5800, None),
        (10.0, 0, None),
    ],
)
def test_a_starving_device_is_diagnosed(seconds, images, line):
    found = data.diagnosis(Reading(), loader()[0].source, images, seconds)
    assert found is None if line is None else found.startswith(line)
    assert found is None or "takes 1,450: more cores" in found


def test_waiting_for_the_first_batch_alone_is_no_diagnosis():
    """In a run of two steps the wait is long, and the pipeline yet the faster of the two."""

    class Short:
        wait, busy, made = 0.9, 0.5, 64

    assert data.diagnosis(Short(), loader()[0].source, 64, 10.0) is None
    Short.wait = 5.0
    assert data.diagnosis(Short(), loader()[0].source, 64, 10.0) is None


def test_slow_encoded_files_are_to_be_prepared_with_a_whole_command():
    files = data.Source()
    files.name = "folder"
    line = data.diagnosis(Reading(), files, 5800, 10.0)
    command = line.partition("python launch.py ")[2].split()
    assert command[:2] == ["--mode=prepare", "--source=folder"]
    assert {flag.partition("=")[0] for flag in command[2:]} == {
        "--data_dir",
        "--output_dir",
        "--short_side",
    }


def test_a_feed_knows_its_own_speed():
    batches, _ = loader()
    with data.Prefetcher(batches, 0, 5, lambda batch: batch) as feed:
        assert len(list(feed)) == 5
        assert feed.made == 50
        assert feed.busy > 0
