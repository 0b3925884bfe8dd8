"""The contests on the CPU, on the smallest problems; no speed is asserted."""

import math
from functools import partial

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


def test_the_contest_has_every_convolution_of_a_network():
    case = cpu_training.Case("resnet50", 224, 3, 16, 1000, 1, {})
    shapes = cpu_convolution.shapes(case)
    assert len(shapes) == len(set(shapes)) == 23
    assert shapes[:2] == [(224, 3, 64, 7, 2), (56, 64, 64, 1, 1)]
    assert (14, 1024, 2048, 1, 2) in shapes


def test_every_contestant_does_the_three_operations():
    draws = np.random.default_rng(0)
    images, kernel, cotangent = (
        draws.standard_normal(shape, np.float32)
        for shape in ((2, 5, 5, 3), (3, 3, 3, 4), (2, 3, 3, 4))
    )
    keywords = {"strides": (2, 2), "padding": ((1, 1), (1, 1))}
    arrays = images, kernel, cotangent
    ours, stock = (
        [
            np.asarray(call())
            for call in cpu_convolution.jax_calls(partial(function, **keywords), *arrays)
        ]
        for function in (cpu_convolution.conv2d, cpu_convolution.stock)
    )
    output, (by_image, *_), (_, by_kernel, _) = (
        call() for call in cpu_convolution.torch_calls(*arrays, stride=2, pad=1)
    )
    torchs = [
        output.numpy().transpose(0, 2, 3, 1),
        by_image.numpy().transpose(0, 2, 3, 1),
        by_kernel.numpy().transpose(2, 3, 1, 0),
    ]
    for one, other, third in zip(ours, stock, torchs, strict=True):
        np.testing.assert_allclose(one, third, atol=1e-4)
        np.testing.assert_allclose(other, third, atol=1e-4)


def test_a_contest_times_all_three_operations_of_all():
    least = cpu_convolution.measure(2, (5, 3, 4, 3, 2), 1)
    assert set(least) == {"ours", "XLA", "PyTorch"}
    assert all(0 < seconds < np.inf for three in least.values() for seconds in three)


def test_the_operations_are_those_of_the_network_that_is_trained():
    case = cpu_training.Case("resnet18", 28, 1, 2, 10, 1, {})
    with_ten = cpu_training.image_flops(case)
    assert with_ten == 196_836_352
    assert cpu_training.image_flops(case._replace(num_classes=1000)) - with_ten == 6 * 512 * 990


@pytest.mark.parametrize("name", ["resnet18", "fashion_mnist_best"])
def test_stock_flax_has_the_parameters_of_our_network(name):
    ours = cpu_training.summarize(contest.network(name, num_classes=10), 28, 1)
    images, _ = contest.draw(2, 28, 1, 10)
    variables = jax.eval_shape(
        lambda key: flax_resnet.make_model(name, 10).init(key, images, train=False),
        jax.random.key(0),
    )
    assert (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == ours.params
    )


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
