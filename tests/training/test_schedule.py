import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.training import schedule

STEPS_PER_EPOCH = 10


def fields(**changes):
    return {name: field.default for name, field in schedule.FIELDS.items()} | changes


def rates(steps, num_epochs=90, peak=0.1, **changes):
    rate = schedule.make_schedule(
        fields(**changes), peak, STEPS_PER_EPOCH, num_epochs * STEPS_PER_EPOCH
    )
    return np.array([float(rate(step)) for step in steps])


def test_the_step_schedule_drops_with_the_first_step_of_epochs_30_60_and_80():
    steps = [0, 299, 300, 599, 600, 799, 800, 899]
    np.testing.assert_allclose(
        rates(steps), [0.1, 0.1, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6
    )


def test_boundaries_may_be_fractions_of_an_epoch_and_may_be_absent():
    np.testing.assert_allclose(rates([4, 5], boundaries=(0.5,), factor=0.5), [0.1, 0.05], rtol=1e-6)
    np.testing.assert_allclose(rates([0, 899], boundaries=()), [0.1, 0.1], rtol=1e-6)


def test_the_warm_up_rises_linearly_and_reaches_the_peak_with_its_last_step():
    np.testing.assert_allclose(
        rates([0, 24, 49, 50], warmup_epochs=5), [0.002, 0.05, 0.1, 0.1], rtol=1e-6
    )
    np.testing.assert_allclose(rates([24], warmup_epochs=5, warmup_factor=0.5), [0.075], rtol=1e-6)


def test_the_cosine_runs_from_the_warm_up_and_would_end_after_the_last_step():
    shape = {"name": "cosine", "num_epochs": 10, "warmup_epochs": 2}
    last = 0.05 * (1 + np.cos(np.pi * 79 / 80))
    np.testing.assert_allclose(rates([20, 60, 99, 100], **shape), [0.1, 0.05, last, 0.0], atol=1e-8)
    np.testing.assert_allclose(rates([100], **shape, end_factor=0.1), [0.01], rtol=1e-6)


def test_the_polynomial_has_its_power():
    np.testing.assert_allclose(
        rates([5], name="polynomial", num_epochs=1, power=2), [0.025], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("optimizer", "base_batch_size", "peak"),
    [("sgd", 0, 0.4), ("lars", 0, 0.4), ("adam", 0, 0.1), ("sgd", None, 0.1), ("adamw", 512, 0.2)],
)
def test_the_rate_scales_with_the_batch_for_sgd_and_stands_for_others(
    optimizer, base_batch_size, peak
):
    assert schedule.peak_rate(
        fields(base_batch_size=base_batch_size), 1024, optimizer
    ) == pytest.approx(peak)


def test_boundaries_that_do_not_increase_are_refused():
    with pytest.raises(
        UserError, match=r"config\.schedule\.boundaries = \(30\.0, 30\.0\): must increase"
    ):
        schedule.check(fields(boundaries=(30.0, 30.0)))


def test_what_a_shortened_run_never_reaches_is_said_once():
    assert schedule.warnings(fields(), 90) == []
    (line,) = schedule.warnings(fields(), 60)
    assert "[60.0, 80.0]" in line
    assert len(schedule.warnings(fields(warmup_epochs=5), 1)) == 2
    assert schedule.warnings(fields(name="cosine"), 1) == []
