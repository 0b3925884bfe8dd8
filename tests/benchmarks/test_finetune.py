"""Whether fine-tuning pays: what the measurement's images are, and what its page says."""

import numpy as np
import pytest

from benchmarks import finetune


@pytest.fixture
def data(tmp_path):
    """Ten classes whose every image has pixels of its own, a number and its split."""
    for split, count in (("train", 200), ("t10k", 50)):
        numbers = np.arange(count)
        images = np.stack([numbers % 256, numbers // 256, np.full(count, len(split))], 1)
        finetune.write_idx(tmp_path / f"{split}-images-idx3-ubyte", images[:, None])
        finetune.write_idx(tmp_path / f"{split}-labels-idx1-ubyte", numbers % 10)
    return tmp_path


def rows(folder, split):
    images = finetune.read_idx(folder / f"{split}-images-idx3-ubyte")
    labels = finetune.read_idx(folder / f"{split}-labels-idx1-ubyte")
    return {tuple(image.ravel()) for image in images}, labels


def test_a_search_sees_no_test_image_and_scores_no_image_that_it_trains_on(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(finetune, "LABELLED", 4)
    monkeypatch.setattr(finetune, "HELD_OUT", 6)
    task = finetune.Task(data, "new")
    (few, labels), (held, scored) = (
        rows(task.write_few(tmp_path / "search", 3, is_search=True), split)
        for split in ("train", "t10k")
    )
    assert np.bincount(labels).tolist() == [4] * 5
    assert np.bincount(scored).tolist() == [6] * 5
    assert not few & held
    assert {image[2] for image in few | held} == {len("train")}
    tested, labels = rows(task.write_few(tmp_path / "few", 0), "t10k")
    assert {image[2] for image in tested} == {len("t10k")}
    assert np.bincount(labels).tolist() == [5] * 5


def test_the_page_says_so_where_fine_tuning_loses():
    search = {
        (way, rate, epochs): rate
        for way in finetune.WAYS
        for rate in finetune.RATES
        for epochs in finetune.EPOCHS
    }
    assert finetune.chosen(search, "linear probe")[0] == max(finetune.RATES)
    lost = dict(zip(finetune.WAYS, (0.9, 0.7, 0.8), strict=True), known=0.95)
    scores = {(what, seed): score for what, score in lost.items() for seed in finetune.SEEDS}
    page = finetune.page(search, scores)
    assert "beats training from random numbers with 0 of 3 seeds, by -0.1000" in page
    assert "and the linear probe with 3 of 3 seeds, by +0.1000 on average" in page
    assert "| fine-tuning | 0.8000 | 0.8000 | 0.8000 | 0.8000 ± 0.0000 |" in page
