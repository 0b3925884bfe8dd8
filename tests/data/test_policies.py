"""Policies: each operation against a plain reference and the libraries, the draws against papers.

The references are NumPy from the definitions, on scikit-learn's two photographs.
"""

import collections
import functools
import json
import math
import pathlib

import numpy as np
import pytest
import scipy.stats
from data_settings import settings
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from resnet_jax import data
from resnet_jax.data.images import operations, policies
from resnet_jax.data.images.draws import Draws

STREAM = policies._STREAM
FILL = (124, 116, 104)
GOLDENS = json.loads(pathlib.Path(__file__).with_name("policy_goldens.json").read_text())["cases"]


@functools.cache
def photos():
    return [np.ascontiguousarray(p[100:260, 200:328]) for p in load_sample_images().images]


def made(pixels, name, amount):
    return np.asarray(operations.apply(Image.fromarray(pixels), name, amount, FILL))


def moved(pixels, matrix):
    """Samples bilinearly where `matrix` [2, 3] sends the centre of each pixel (x, y)."""
    height, width, _ = pixels.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = np.tensordot(np.asarray(matrix, float), np.stack([x, y, np.ones_like(x)]), 1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = (x - left)[..., None], (y - top)[..., None]
    at = lambda r, c: pixels[r.clip(0, height - 1), c.clip(0, width - 1)].astype(float)  # noqa: E731
    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return np.where(inside[..., None], upper * (1 - down) + lower * down, FILL)


def turned(pixels, degrees):
    height, width, _ = pixels.shape
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return moved(
        pixels,
        [
            [cosine, -sine, x - cosine * x + sine * y],
            [sine, cosine, y - sine * x - cosine * y],
        ],
    )


def grey(pixels):
    return np.floor(pixels @ np.array([0.299, 0.587, 0.114]) + 0.5)[..., None]


def blended(pixels, other, factor):
    return np.clip(other + factor * (pixels.astype(float) - other), 0, 255)


def smoothed(pixels):
    wide = pixels.astype(float)
    total = sum(wide[1 + i : len(wide) - 1 + i, 1 + j : wide.shape[1] - 1 + j]
                for i in (-1, 0, 1) for j in (-1, 0, 1))  # fmt: skip
    inner = (total + 4 * wide[1:-1, 1:-1]) / 13
    wide[1:-1, 1:-1] = inner
    return wide


def stretched(pixels):
    low, high = pixels.min((0, 1)).astype(float), pixels.max((0, 1)).astype(float)
    return np.clip((pixels - low) * 255 / (high - low), 0, 255)


def equalized(pixels):
    """Values become the share of pixels below them, the last value's pixels not counted."""
    result = np.empty_like(pixels)
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        below = np.cumsum(counts) - counts
        table = np.clip((step // 2 + below) // step, 0, 255)
        result[..., channel] = table[pixels[..., channel]]
    return result


# Operation, amount, reference, and by how much a value may differ: Pillow truncates its blends.
PLAIN = [
    ("shear_x", 0.21, lambda p: moved(p, [[1, 0.21, 0], [0, 1, 0]]), 1),
    ("shear_y", -0.3, lambda p: moved(p, [[1, 0, 0], [-0.3, 1, 0]]), 1),
    ("translate_x", -32, lambda p: moved(p, [[1, 0, -32], [0, 1, 0]]), 0),
    ("translate_y", 31, lambda p: moved(p, [[1, 0, 0], [0, 1, 31]]), 0),
    ("rotate", 27.0, lambda p: turned(p, 27.0), 1),
    ("rotate", -135.0, lambda p: turned(p, -135.0), 1),
    ("brightness", 0.37, lambda p: blended(p, 0, 0.37), 1),
    ("color", 1.9, lambda p: blended(p, grey(p), 1.9), 2),
    ("contrast", 0.1, lambda p: blended(p, round(grey(p).mean()), 0.1), 1),
    ("sharpness", 0.1, lambda p: blended(p, smoothed(p), 0.1), 2),
    ("sharpness", 1.9, lambda p: blended(p, smoothed(p), 1.9), 2),
    ("posterize", 3, lambda p: p & 0b11100000, 0),
    ("posterize", 0, np.zeros_like, 0),
    ("solarize", 100, lambda p: np.where(p < 100, p, 255 - p), 0),
    ("solarize_add", 60, lambda p: np.where(p < 128, np.minimum(p + 60.0, 255), p), 0),
    ("autocontrast", 0, stretched, 1),
    ("equalize", 0, equalized, 0),
    ("invert", 0, lambda p: 255 - p, 0),
    ("identity", 0, lambda p: p, 0),
]


@pytest.mark.parametrize(("name", "amount", "reference", "most"), PLAIN)
def test_an_operation_is_its_definition(name, amount, reference, most):
    for pixels in photos():
        difference = np.abs(made(pixels, name, amount) - np.asarray(reference(pixels), float))
        assert np.quantile(difference, 0.999) <= most
        assert difference.mean() <= 0.75 * most


def test_a_turned_hue_keeps_lightness_and_a_full_turn_keeps_all():
    for pixels in photos():
        for turn in (0.1, -0.37):
            turned_hue = made(pixels, "hue", turn)
            assert np.abs(turned_hue.max(-1) - pixels.max(-1).astype(float)).max() <= 1
            assert np.abs(turned_hue - pixels.astype(float)).mean() > 5
        assert np.abs(made(pixels, "hue", 0.0) - pixels.astype(float)).mean() < 2


def grid(pixels):
    height, width, channels = pixels.shape
    cells = pixels.reshape(4, height // 4, 4, width // 4, channels)
    return cells.astype(float).mean((1, 3)).ravel()


@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: f"{case['name']}-{case['amount']}")
def test_an_operation_is_torchvisions_or_timms(case):
    for pixels, expected in zip(photos(), case["grids"], strict=True):
        found = grid(made(pixels, case["name"], case["amount"]))
        assert np.abs(found - expected).max() <= 0.01


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_operations_written_for_speed_are_pillows_own(mode):
    for pixels in (*photos(), photos()[0][:3, :3], np.full((4, 4, 3), 7, np.uint8)):
        image = Image.fromarray(pixels).convert(mode)
        pairs = [
            (operations.autocontrast(image), ImageOps.autocontrast(image)),
            (operations.invert(image), ImageOps.invert(image)),
        ]
        for factor in (0.0, 0.1, 0.55, 1.0, 1.3, 1.99):
            pairs += [
                (operations.contrast(image, factor), ImageEnhance.Contrast(image).enhance(factor)),
                (
                    operations.sharpness(image, factor),
                    ImageEnhance.Sharpness(image).enhance(factor),
                ),
            ]
        for found, expected in pairs:
            np.testing.assert_array_equal(found, expected)


def test_grey_images_go_through_every_operation():
    pixels = photos()[0][..., 0]
    for name in operations.OPERATIONS:
        result = operations.apply(Image.fromarray(pixels), name, 1, 7)
        assert result.mode == "L"
        assert result.size == pixels.shape[::-1]


COUNT = 10_000


def drawn(function, *arguments):
    return [function(Draws(STREAM, 0, 3, index), *arguments) for index in range(COUNT)]


def is_uniform(counts, expected):
    """Whether counts over `expected` choices are uniform, at odds of one in ten thousand."""
    values = list(counts.values()) if isinstance(counts, dict) else list(counts)
    assert len(values) == expected
    return scipy.stats.chisquare(values).pvalue > 1e-4


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_randaugment_draws_as_stated(probability):
    steps = drawn(policies.randaugment, 200, 2, 7.0, 0.5, True, probability)
    applied = collections.Counter(map(len, steps))
    expected = {
        2: probability**2,
        1: 2 * probability * (1 - probability),
        0: (1 - probability) ** 2,
    }
    for length, share in expected.items():
        assert abs(applied[length] - share * COUNT) <= 4 * math.sqrt(COUNT * share * (1 - share))
    flat = [step for each in steps for step in each]
    assert is_uniform(collections.Counter(name for name, _ in flat), 15)
    # Shear says what the magnitude was: normal about 7, and either way alike.
    levels = [amount / 0.03 for name, amount in flat if name == "shear_x"]
    assert scipy.stats.kstest(np.abs(levels), scipy.stats.norm(7, 0.5).cdf).pvalue > 1e-4
    assert abs(np.mean(np.sign(levels))) < 4 / math.sqrt(len(levels))
    amounts = collections.defaultdict(set)
    for name, amount in flat:
        amounts[name].add(amount)
    assert amounts["posterize"] <= {1, 2, 3}
    assert all(amount > 0.1 for amount in amounts["color"])
    assert all(abs(amount) <= 0.45 * 200 for amount in amounts["translate_y"])


@pytest.mark.parametrize(
    ("inc", "expected"),
    [
        (True, {"posterize": 4, "solarize": 256, "color": 1.0, "solarize_add": 0, "rotate": 0}),
        (False, {"posterize": 0, "solarize": 0, "color": 0.1, "solarize_add": 0, "rotate": 0}),
    ],
)
def test_randaugment_at_magnitude_zero_is_timms(inc, expected):
    flat = {
        step for each in drawn(policies.randaugment, 200, 4, 0.0, 0.0, inc, 1.0) for step in each
    }
    for name, amount in expected.items():
        assert {found for other, found in flat if other == name} == {amount}


def test_magnitudes_stay_within_ten():
    flat = [
        step for each in drawn(policies.randaugment, 1, 2, 9.0, 5.0, True, 1.0) for step in each
    ]
    assert max(abs(amount) for name, amount in flat if name == "rotate") == 30
    assert min(abs(amount) for name, amount in flat if name == "rotate") == 0


def test_trivialaugment_draws_one_of_14_operations_at_one_of_31_strengths():
    flat = [step for (step,) in drawn(policies.trivialaugment_wide)]
    assert is_uniform(collections.Counter(name for name, _ in flat), 14)
    strengths = collections.Counter(
        round(abs(amount - 1) / 0.033) for name, amount in flat if name in policies._BLENDS
    )
    assert is_uniform(strengths, 31)
    found = collections.defaultdict(list)
    for name, amount in flat:
        found[name].append(amount)
    assert set(found["posterize"]) == {2, 3, 4, 5, 6, 7, 8}
    assert {min(found["solarize"]), max(found["solarize"])} == {0, 255}
    assert {min(found["translate_x"]), max(found["translate_x"])} == {-32, 32}
    assert {min(found["rotate"]), max(found["rotate"])} == {-135, 135}
    assert max(found["shear_y"]) == pytest.approx(0.99)
    assert all(amount == int(amount) for amount in found["translate_y"])


def test_autoaugment_applies_each_pair_as_often_as_its_table_says():
    pairs, expected = drawn(policies.autoaugment), collections.Counter()
    for pair in policies.AUTOAUGMENT:
        for name, probability, _ in pair:
            expected[name] += probability / 25 * COUNT
    found = collections.Counter(name for pair in pairs for name, _ in pair)
    assert set(found) == set(expected)
    for name, mean in expected.items():
        assert abs(found[name] - mean) <= 5 * math.sqrt(mean)
    # The pairs with an operation of probability 1 tell how often a pair is chosen.
    contrasts = [amount for pair in pairs for name, amount in pair if name == "contrast"]
    assert abs(len(contrasts) - COUNT * 2 / 25) <= 4 * math.sqrt(COUNT * 2 / 25)
    assert contrasts == pytest.approx([1.54] * len(contrasts))
    amounts = {(name, abs(amount)) for pair in pairs for name, amount in pair}
    assert {a for n, a in amounts if n == "posterize"} == {6, 7}
    assert {a for n, a in amounts if n == "solarize"} == {76, 102, 128, 179, 204}
    assert sorted(a for n, a in amounts if n == "rotate") == pytest.approx([9, 24, 27])


def test_colour_jitter_is_uniform_and_in_any_order():
    steps = drawn(policies.color_jitter, (0.4, 0.2, 0.0, 0.1))
    assert is_uniform(collections.Counter(tuple(name for name, _ in each) for each in steps), 6)
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.8, 1.2), ("hue", -0.1, 0.1)):
        amounts = [dict(each)[name] for each in steps]
        uniform = scipy.stats.uniform(low, high - low)
        assert scipy.stats.kstest(amounts, uniform.cdf).pvalue > 1e-4


def test_a_draw_depends_on_seed_epoch_index_and_copy_alone():
    draw = lambda *key: policies.randaugment(Draws(STREAM, *key), 224, 8, 7.0, 0.5, True, 1.0)  # noqa: E731
    assert draw(1, 2, 3, 0) == draw(1, 2, 3)
    keys = [(1, 2, 3, 0), (0, 2, 3, 0), (1, 0, 3, 0), (1, 2, 0, 0), (1, 2, 3, 1)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_draws_never_change():
    """A run must go on tomorrow with the draws of today."""
    words = [round(Draws(STREAM, 0, 1, index).uniform(), 9) for index in range(3)]
    assert words == [0.148294198, 0.550767469, 0.788153706]


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment_wide", "autoaugment"])
def test_a_loader_changes_the_crops_and_nothing_else(policy):
    """The images in memory are grey; what is drawn is what `policies` says for (epoch, index)."""

    def batch(**changes):
        config = settings(image_size=16, random_resized_crop=True, **changes)
        source = data.open_source(config, True)
        loader = data.Loader(source, config, batch_size=256, seed=5, train=True)
        return loader[7], loader.moments()[0]

    plain, mean = batch()
    changed, _ = batch(policy=policy)
    fill = 0 if policy == "trivialaugment_wide" else round(255 * float(mean[0]))
    draw = policies._drawing(settings(policy=policy), 16)
    assert all(np.array_equal(plain[name], changed[name]) for name in set(plain) - {"image"})
    rows = zip(
        plain["index"].tolist(), plain["image"][..., 0], changed["image"][..., 0], strict=True
    )
    for index, before, after in rows:
        image = Image.fromarray(before)
        for name, amount in draw(Draws(STREAM, 5, 1, index)):
            image = operations.apply(image, name, amount, fill)
        assert np.array_equal(after, np.asarray(image))
    assert (plain["image"] != changed["image"]).any((1, 2, 3)).mean() > 0.5
