"""Learning curves and their table over seeds, from what runs log."""

import pytest

from resnet_jax.training.reporting import curves


def line(step, epoch, **scores):
    times = {"images_per_sec": 100.0, "step_ms_p50": 50.0}
    return (
        {"step": step, "epoch": epoch, "split": "train", "loss": 1.0, "top1": 0.5} | times | scores
    )


def test_lines_between_epochs_are_joined_and_times_added_up():
    records = [
        line(4, 0.4, loss=2.0),
        line(10, 1.0),
        {"step": 10, "epoch": 1.0, "split": "test", "loss": 0.7, "top1": 0.75, "examples": 8},
        line(15, 1.5, top1=0.625),
    ]
    first, last = curves.by_epoch(records, batch_size=20)
    assert first["train_loss"] == pytest.approx((4 * 2 + 6) / 10)
    assert (first["seconds"], first["steady_seconds"]) == (2.0, 0.5)
    assert (first["eval_loss"], first["eval_top1"]) == (0.7, 0.75)
    assert (last["step"], last["epoch"], last["train_top1"]) == (15, 1.5, 0.625)
    assert "eval_top1" not in last
    assert curves.epoch_seconds([first, last]) == [2.0, 1.0]


def test_the_score_that_ends_a_run_between_two_lines_is_its_last():
    score = {"step": 15, "epoch": 1.5, "split": "test", "loss": 0.2, "top1": 0.95, "examples": 8}
    (first, last) = curves.by_epoch([line(10, 1.0), line(12, 1.2), score], batch_size=20)
    assert "eval_top1" not in first
    assert (last["step"], last["eval_top1"]) == (12, 0.95)
    (first, last) = curves.by_epoch([line(10, 1.0), score, line(16, 1.6)], batch_size=20)
    assert "eval_top1" not in last
    (only,) = curves.by_epoch([line(10, 1.0), score | {"step": 10, "top1": 0.5}, score], 20)
    assert only["eval_top1"] == 0.5


def run(*scores):
    return [
        {"epoch": float(number), "seconds": 5.0 * number, "steady_seconds": 4.0 * number}
        | {"train_top1": 0.5, "eval_top1": score}
        for number, score in enumerate(scores, 1)
    ]


def test_a_row_over_seeds_has_mean_deviation_and_median_times():
    row = curves.over_seeds([run(0.1, 0.88), run(0.1, 0.89), run(0.1, 0.93)])
    assert row == {
        "top-1": "0.9000 ± 0.0265",
        "n": 3,
        "training time (s)": 10.0,
        "s an epoch": 5.0,
        "steady s an epoch": 4.0,
    }
    assert curves.over_seeds([run(0.5)])["top-1"] == "0.5000"


def test_a_mean_is_taken_where_every_run_has_a_score():
    longer, shorter = run(0.2, 0.4, 0.6), run(0.4, 0.6)
    assert curves.mean_curve([longer, shorter], "eval_top1") == ([1, 2], pytest.approx([0.3, 0.5]))
