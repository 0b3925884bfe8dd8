"""The contests on the CPU, on the smallest problems; no speed is asserted."""

import math

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import contest, cpu_convolution, cpu_training, flax_resnet


@pytest.mark.parametrize(
    ("batch", "shape", "expected"),
    [
        (1, (4, 1, 1, 1, 1), 2 * 16),
        (2, (7, 64, 128, 3, 2), 2 * 2 * 16 * 64 * 128 * 9),
        (16, (224, 3, 64, 7, 2), 2 * 16 * 112**2 * 3 * 64 * 49),
    ],
)
def test_the_work_of_a_convolution_counts_every_tap_of_every_output_pixel(batch, shape, expected):
    assert cpu_convolution.flops(batch, shape) == expected


def test_every_contestant_does_the_three_operations():
    least = cpu_convolution.measure(2, (5, 3, 4, 3, 2), 1)
    assert set(least) == {"ours", "XLA", "PyTorch"}
    assert all(0 < seconds < np.inf for three in least.values() for seconds in three)


@pytest.mark.parametrize("name", ["resnet18", "fashion_mnist_best"])
def test_stock_flax_has_the_parameters_of_our_network(name):
    ours = cpu_training.summarize(contest.network(name, num_classes=10), 28, 1)
    images, _ = contest.draw(2, 28, 1, 10)
    variables = jax.eval_shape(
        lambda key: flax_resnet.make_model(name, 10).init(key, images, train=False), jax.random.key(0)
    )
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == ours.params


def test_the_page_has_a_row_for_each_case_and_says_what_was_wanted():
    case = cpu_training.Case("fashion_mnist_best", 16, 1, 2, 10, 1, {"flax": 3.0, "torch": None})
    result = cpu_training.summarise(case, cpu_training.measure(case, 2))
    page = cpu_training.table(contest.machine(), [result], "the command").splitlines()
    first, second = (line.split(" | ") for line in page if line.startswith("| fashion_mnist_best"))
    assert first[1] == "2 of 16x16x1"
    assert first[5].endswith("at least 3 wanted)")
    assert "wanted" not in first[6]
    assert float(second[2]) == pytest.approx(
        result["images_per_second"]["ours"] * result["image_flops"] / 1e9, abs=0.5
    )
