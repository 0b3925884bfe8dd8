"""The device's augmentations, each against a slow plain reference."""

import functools

import fabricate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from data_settings import settings

from resnet_jax import UserError, data
from resnet_jax.data.augment import mixing, pipeline, transforms
from resnet_jax.data.images import geometry
from resnet_jax.seeds import seed_words

KEYS = [jax.random.key(i) for i in range(40)]


def photo(size=12, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, channels), np.uint8)


def batch(rows=8, size=12, epoch=0, first=0):
    return {
        "image": np.stack([photo(size, seed=first + i) for i in range(rows)]),
        "label": np.arange(rows, dtype=np.int32) % 5,
        "mask": np.ones(rows, bool),
        "index": np.arange(first, first + rows, dtype=np.int32),
        "epoch": np.full(rows, epoch, np.int32),
    }


def source():
    return data.open_source(settings(name="synthetic", image_size=12, synthetic_train=8), True)


@functools.cache
def compiled(train, seed, dtype, changes):
    config = settings(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), **dict(changes))
    if not train:
        normalise = data.make_normalise(config, source(), dtype)
        return jax.jit(lambda batch: (normalise(batch["image"]), None))
    augment = data.make_augment(config, source(), 5, dtype)
    return jax.jit(lambda batch: augment(batch, seed_words(seed)))


def augmented(batch, train=True, seed=0, dtype=jnp.float32, **changes):
    return compiled(train, seed, dtype, tuple(changes.items()))(batch)


def test_normalising_is_exact():
    images, targets = augmented(batch())
    expected = (batch()["image"] / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.4])
    assert abs(images - expected).max() < 1e-6
    assert images.dtype == jnp.float32
    assert np.array_equal(targets, np.eye(5)[batch()["label"]])


def test_evaluation_ignores_every_augmentation():
    plain = augmented(batch())[0]
    changed = augmented(
        batch(), train=False, flip=True, pad_and_crop=3, random_erasing=1.0, mixup=1.0, cutmix=1.0
    )
    assert np.array_equal(plain, changed[0])


def test_flips_mirror_about_half():
    image = photo()
    results = [np.asarray(transforms.random_flip(key, image)) for key in KEYS]
    mirrored = [np.array_equal(result, image[:, ::-1]) for result in results]
    assert all(np.array_equal(r, image) or m for r, m in zip(results, mirrored, strict=True))
    assert 10 <= sum(mirrored) <= 30


def test_alternating_flips_begin_at_random_and_turn_round_every_epoch():
    plain = augmented(batch(rows=64))[0]
    rounds = [
        augmented(batch(rows=64, epoch=epoch), flip=True, flip_mode="alternating")[0]
        for epoch in range(4)
    ]
    at_random = augmented(batch(rows=64), flip=True)[0]
    assert np.array_equal(rounds[0], at_random)
    mirrored = np.array([[np.array_equal(a, b[:, ::-1]) for a, b in zip(each, plain, strict=True)]
                         for each in rounds])  # fmt: skip
    assert 16 <= mirrored[0].sum() <= 48
    assert np.array_equal(mirrored[1], ~mirrored[0])
    assert np.array_equal(mirrored[2:], mirrored[:2])


def test_copies_of_an_image_are_drawn_for_apart():
    copies = [
        augmented({**batch(rows=64), "copy": np.full(64, copy, np.int32)}, flip=True, repeats=2)[0]
        for copy in (0, 1)
    ]
    same = [np.array_equal(a, b) for a, b in zip(*copies, strict=True)]
    assert 16 <= sum(same) <= 48


def test_pad_and_crop_cuts_every_window_of_the_padded_image():
    image, pixels = photo(6) | 1, 2
    padded = np.zeros((10, 10, 3), np.uint8)
    padded[2:-2, 2:-2] = image
    windows = {padded[y : y + 6, x : x + 6].tobytes(): (y, x) for y in range(5) for x in range(5)}
    crop = jax.jit(jax.vmap(lambda key: transforms.pad_and_crop(key, image, pixels)))
    found = {
        windows[np.asarray(result).tobytes()] for result in crop(jax.random.split(KEYS[0], 400))
    }
    assert len(found) == 25


@pytest.mark.parametrize("fill", ["zero", "noise"])
def test_erasing_overwrites_one_rectangle_of_legal_size(fill):
    image = np.ones((32, 32, 3), np.float32) * 7
    erase = jax.jit(
        lambda key: transforms.random_erasing(key, image, 1.0, (0.1, 0.3), (0.5, 2.0), fill)
    )
    for key in KEYS:
        changed = (np.asarray(erase(key)) != image).all(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        height, width = len(rows), len(columns)
        expected = np.zeros((32, 32), bool)
        expected[rows[0] : rows[0] + height, columns[0] : columns[0] + width] = True
        assert np.array_equal(changed, expected)
        # A half pixel of rounding on each side.
        assert (height - 0.5) * (width - 0.5) <= 0.3 * 1024
        assert (height + 0.5) * (width + 0.5) >= 0.1 * 1024
        assert (height - 0.5) / (width + 0.5) <= 2
        assert (width - 0.5) / (height + 0.5) <= 2


def test_erasing_happens_as_often_as_asked():
    image = np.ones((16, 16, 1), np.float32)
    erase = jax.jit(
        jax.vmap(
            lambda k: transforms.random_erasing(k, image, 0.25, (0.1, 0.3), (0.5, 2.0), "zero")
        )
    )
    share = np.mean([(x != 1).any() for x in np.asarray(erase(jax.random.split(KEYS[1], 2000)))])
    assert abs(share - 0.25) < 0.03


def reference_mix(kept, cut_boxes, images, targets, cuts):
    mixed, labels = images.copy(), targets.copy()
    for row in range(len(images)):
        other = row ^ 1
        if cuts:
            mixed[row] = np.where(cut_boxes[row][..., None], images[other], images[row])
            share = 1 - cut_boxes[row].mean()
        else:
            share = kept[row]
            mixed[row] = share * images[row] + (1 - share) * images[other]
        labels[row] = share * targets[row] + (1 - share) * targets[other]
    return mixed, labels


@pytest.mark.parametrize("cuts", [False, True])
def test_mixing_equals_a_plain_loop(cuts):
    images = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype(np.float32)
    targets = np.eye(8, dtype=np.float32)
    keys = jax.random.split(KEYS[2], 8)
    alphas = {"mixup_alpha": 0.0 if cuts else 0.8, "cutmix_alpha": 1.0 if cuts else 0.0}
    got, labels = mixing.mix(
        keys, images, targets, np.ones(8, bool), **alphas, probability=1.0, cutmix_share=0.5
    )
    kept = [float(labels[row, row]) for row in range(8)]
    boxes = [(np.asarray(got)[row] == images[row ^ 1]).all(-1) for row in range(8)]
    expected, expected_labels = reference_mix(kept, boxes, images, targets, cuts)
    assert abs(got - expected).max() < 1e-6
    assert abs(labels - expected_labels).max() < 1e-6
    assert len({round(k, 4) for k in kept}) > 4
    for box in boxes if cuts else []:
        rows, columns = box.any(1), box.any(0)
        assert np.array_equal(box, rows[:, None] & columns[None])
        assert all(np.abs(np.diff(side.astype(int))).sum() <= 2 for side in (rows, columns))


def test_mixup_shares_follow_their_beta_distribution():
    images, targets = (
        np.zeros((4000, 1, 1, 1), np.float32),
        np.tile(np.eye(2, dtype=np.float32), (2000, 1)),
    )
    keys = jax.random.split(KEYS[3], 4000)
    mix = jax.jit(
        lambda: mixing.mix(keys, images, targets, np.ones(4000, bool), 0.4, 0.0, 1.0, 0.5)[1]
    )
    kept = np.asarray(mix())[np.arange(4000), np.arange(4000) % 2]
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)).
    assert abs(kept.mean() - 0.5) < 0.02
    assert abs(kept.var() - 1 / (4 * 1.8)) < 0.01


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.5, 1.0, 4.0, 100.0])
def test_a_symmetric_beta_has_its_distribution(alpha):
    count = 100_000
    draws = jax.random.uniform(KEYS[5], (2, count), np.float32)
    found = np.sort(
        np.asarray(jax.jit(mixing.symmetric_beta)(*draws, np.float32(alpha)), np.float64)
    )
    assert found[0] >= 0
    assert found[-1] <= 1
    # Away from the ends, where float32 rounds small alphas' draws to 0 and 1; Kolmogorov and
    # Smirnov at 1 in 1,000.
    grid = np.linspace(0.001, 0.999, 999)
    share = np.searchsorted(found, grid) / count
    assert abs(share - scipy.special.betainc(alpha, alpha, grid)).max() < 1.95 / count**0.5


def test_a_symmetric_beta_is_finite_at_the_ends_of_its_draws():
    angle, radius = np.meshgrid(
        np.float32([0, 0.25, 0.5, 0.75, 1 - 2**-24]), np.float32([0, 2**-23, 1 - 2**-24])
    )
    for alpha in (1e-6, 0.2, 1.0, 100.0):
        shares = np.asarray(jax.jit(mixing.symmetric_beta)(angle, radius, np.float32(alpha)))
        assert ((shares >= 0) & (shares <= 1)).all()


def test_a_masked_partner_is_not_mixed_in():
    rows = batch()
    rows["mask"][3] = False
    mixed, targets = augmented(rows, mixup=1.0, cutmix=1.0)
    plain, one_hot = augmented(rows)
    assert np.array_equal(mixed[2], plain[2])
    assert np.array_equal(targets[2], one_hot[2])
    assert not np.array_equal(mixed[0], plain[0])


EVERYTHING = {"flip": True, "pad_and_crop": 2, "random_erasing": 0.5, "mixup": 0.2, "cutmix": 1.0}


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    single = {k: v for k, v in EVERYTHING.items() if k not in ("mixup", "cutmix")}
    whole = np.asarray(augmented(batch(8), **single)[0])
    part = {name: value[4:] for name, value in batch(8).items()}
    assert np.array_equal(whole[4:], augmented(part, **single)[0])
    assert not np.array_equal(whole, augmented(batch(8, epoch=1), **single)[0])
    assert not np.array_equal(whole, augmented(batch(8), seed=1, **single)[0])


def test_draws_are_the_same_in_double_precision():
    single = np.asarray(augmented(batch(), **EVERYTHING)[0])
    with jax.enable_x64(True):
        double = augmented(batch(), dtype=jnp.float64, **EVERYTHING)[0]
        assert double.dtype == jnp.float64
        assert abs(np.asarray(double) - single).max() < 1e-5


def test_half_precision_rounds_images_and_never_targets():
    images, targets = augmented(batch(), dtype=jnp.bfloat16, mixup=1.0)
    exact, shares = augmented(batch(), mixup=1.0)
    assert images.dtype == jnp.bfloat16
    assert targets.dtype == jnp.float32
    assert np.array_equal(targets, shares)
    # Twice a bfloat16's rounding error: normalising and blending round once each.
    assert abs(images.astype(jnp.float32) - exact).max() <= abs(exact).max() * 2**-7
    halves = jnp.eye(8, dtype=jnp.bfloat16)
    mixed = mixing.mix(
        jax.random.split(KEYS[4], 8), exact, halves, np.ones(8, bool), 1.0, 0.0, 1.0, 0.5
    )[1]
    assert abs(np.asarray(mixed, np.float64).sum(1) - 1).max() < 1e-6
    assert mixed.dtype == jnp.float32


def test_moments_of_another_number_of_channels_are_refused():
    config = settings(mean=(0.5,), std=(0.5,))
    with pytest.raises(UserError, match=r"config.data.mean = \(0.5,\): must have 3 numbers"):
        data.make_augment(config, source(), 5)


def test_random_crops_are_legal_and_cover_the_image():
    crops = [
        geometry.random_crop(30, 50, (0.2, 0.6), (0.75, 4 / 3), 0, 1, index) for index in range(400)
    ]
    for top, left, height, width in crops:
        assert top >= 0
        assert left >= 0
        assert top + height <= 30
        assert left + width <= 50
        assert 0.2 * 1500 - 40 <= height * width <= 0.6 * 1500 + 40
        assert 0.7 <= width / height <= 1.42
    seen = np.zeros((30, 50), int)
    for top, left, height, width in crops:
        seen[top : top + height, left : left + width] += 1
    assert seen.min() > 0
    assert crops[0] == geometry.random_crop(30, 50, (0.2, 0.6), (0.75, 4 / 3), 0, 1, 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (3, 9)])
def test_random_crops_of_odd_shapes_stay_inside(shape):
    for index in range(50):
        top, left, height, width = geometry.random_crop(
            *shape, (0.08, 1.0), (0.75, 4 / 3), 0, 0, index
        )
        assert 0 <= top < top + height <= shape[0]
        assert 0 <= left < left + width <= shape[1]


def test_keys_differ_between_examples_and_epochs():
    keys = pipeline.example_keys(seed_words(7), jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 0, 1]))
    assert len({tuple(row) for row in jax.random.key_data(keys).tolist()}) == 4


def test_the_fabricated_photographs_differ():
    assert len({fabricate.jpeg(seed) for seed in range(20)}) == 20
