import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.training.loss import LOSSES, make_loss, smooth
from resnet_jax.training.metrics import MetricSums, example_sums


def one_hot(labels, classes):
    return jnp.eye(classes)[jnp.array(labels)]


def slow_hits(logits, labels, k):
    """Sorts each row by falling logit, then by class, and looks for the label among the first k."""
    orders = [sorted(range(len(row)), key=lambda c: (-row[c], c)) for row in logits]
    return sum(label in order[:k] for order, label in zip(orders, labels, strict=True))


def test_hits_are_those_of_a_sort_with_equal_logits_in_class_order():
    logits = np.random.default_rng(0).integers(0, 4, (200, 9)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 9, 200)
    sums = example_sums(jnp.array(logits), one_hot(labels, 9), jnp.zeros(200), jnp.ones(200, bool))
    assert int(sums["top1"]) == slow_hits(logits, labels, 1) == np.sum(logits.argmax(-1) == labels)
    assert int(sums["top5"]) == slow_hits(logits, labels, 5)
    assert int(sums["examples"]) == 200


def test_masked_rows_count_for_nothing_even_when_they_are_not_finite():
    logits = jnp.array([[2.0, 1.0], [jnp.nan, jnp.nan], [0.0, 3.0]])
    losses = jnp.array([0.5, jnp.nan, 0.25])
    sums = example_sums(logits, one_hot([0, 0, 1], 2), losses, jnp.array([True, False, True]))
    assert {name: float(value) for name, value in sums.items()} == {
        "loss": 0.75,
        "top1": 2,
        "top5": 2,
        "examples": 2,
    }


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 10])
@pytest.mark.parametrize("where", ["all", "one"])
def test_a_logit_that_is_not_a_number_is_no_hit(classes, where):
    logits = jnp.zeros((3, classes)).at[:, 0 if where == "one" else slice(None)].set(jnp.nan)
    labels = [0, classes // 2, classes - 1]
    sums = example_sums(logits, one_hot(labels, classes), jnp.zeros(3), jnp.ones(3, bool))
    assert int(sums["top1"]) == int(sums["top5"]) == 0
    assert int(sums["examples"]) == 3


def test_with_fewer_than_five_classes_everything_is_a_top5_hit():
    sums = example_sums(
        jnp.zeros((4, 3)), one_hot([0, 1, 2, 2], 3), jnp.zeros(4), jnp.ones(4, bool)
    )
    assert int(sums["top5"]) == 4


def test_means_survive_being_written_down():
    means = MetricSums()
    means.add({"loss": 0.1, "top1": 3, "top5": 4, "examples": 5})
    again = MetricSums(**means.as_dict())
    again.add({"loss": 0.2, "top1": 0, "top5": 0, "examples": 5})
    assert again.means() == {"loss": (0.1 + 0.2) / 10, "top1": 0.3, "top5": 0.4}
    assert math.isnan(MetricSums().means()["loss"])


def test_the_softmax_loss_is_the_negative_log_probability():
    logits, labels = np.random.default_rng(0).normal(size=(6, 5)), [0, 1, 2, 3, 4, 0]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    losses = LOSSES["softmax"](jnp.array(logits), one_hot(labels, 5))
    np.testing.assert_allclose(losses, -np.log(probabilities[np.arange(6), labels]), rtol=1e-5)


def test_the_binary_loss_is_the_mean_over_classes():
    logits, targets = (
        np.random.default_rng(0).normal(size=(6, 5)),
        np.random.default_rng(1).uniform(size=(6, 5)),
    )
    p = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(-1)
    np.testing.assert_allclose(
        LOSSES["bce"](jnp.array(logits), jnp.array(targets)), expected, rtol=1e-5
    )


def test_losses_and_their_gradients_stay_finite_for_extreme_logits():
    logits, targets = jnp.array([[1e4, -1e4]]), jnp.array([[0.0, 1.0]])
    for loss in LOSSES.values():
        value, gradient = jax.value_and_grad(lambda x, loss=loss: loss(x, targets).sum())(logits)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()


def test_smoothed_targets_keep_their_sum():
    smoothed = smooth(one_hot([1], 4), 0.1)
    np.testing.assert_allclose(smoothed, [[0.025, 0.925, 0.025, 0.025]], rtol=1e-6)
    loss = make_loss({"name": "softmax", "label_smoothing": 0.1})
    logits = jnp.array([[0.0, 2.0, 0.0, 0.0]])
    assert loss(logits, one_hot([1], 4)) == pytest.approx(LOSSES["softmax"](logits, smoothed))
