"""The evaluation images that a run keeps."""

import numpy as np
from running import tiny_recipe

from resnet_jax import data, thumbnails


def loader(process=0, count=1, **changes):
    config = tiny_recipe(**changes)
    source = data.open_source(config.data, train=False)
    return data.Loader(
        source, config.data, batch_size=64, seed=0, train=False,
        process_index=process, process_count=count,
    )  # fmt: skip


def test_they_are_what_evaluation_shows_whichever_process_keeps_them(tmp_path):
    whole = loader(data__eval_size=12)
    assert thumbnails.keep(tmp_path, whole, 10) is None
    kept = thumbnails.read(tmp_path)
    assert kept.places.tolist() == thumbnails.spread(10, len(whole.source)).tolist()
    for image, label, place in zip(*kept, strict=True):
        batch = whole[place // 64]
        np.testing.assert_array_equal(image, batch["image"][place % 64])
        assert label == batch["label"][place % 64]
    written = (tmp_path / thumbnails.FILE).read_bytes()
    assert thumbnails.keep(tmp_path, loader(1, 2, data__eval_size=12), 10) is None
    assert (tmp_path / thumbnails.FILE).read_bytes() == written
    assert thumbnails.keep(tmp_path, whole, 0) is None
    assert not (tmp_path / thumbnails.FILE).exists()


def test_a_file_of_another_kind_is_none_of_them(tmp_path):
    with (tmp_path / thumbnails.FILE).open("wb") as file:
        np.save(file, np.zeros(3))
    assert thumbnails.read(tmp_path) is None


def test_their_places_have_equal_distances_and_both_ends():
    assert thumbnails.spread(5, 9).tolist() == [0, 2, 4, 6, 8]
    assert thumbnails.spread(64, 3).tolist() == [0, 1, 2]
    assert thumbnails.spread(1, 7).tolist() == [0]


def test_a_workdir_that_cannot_take_them_is_no_reason_to_stop(tmp_path):
    why = thumbnails.keep(tmp_path / "absent", loader(), 4)
    assert "No such file" in why
    assert "thumbnails.npz" in why
    assert thumbnails.keep(tmp_path, loader(), 0) is None
    assert thumbnails.read(tmp_path) is None
