"""The training step: the same on any number of devices, its parts exact, its precisions sound."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from resnet_jax import config as config_lib
from resnet_jax.distributed.mesh import make_mesh, replicated, shard_batch, split_by_batch
from resnet_jax.models import create_model
from resnet_jax.seeds import seed_key, seed_words
from resnet_jax.training import loss, optimizer
from resnet_jax.training.state import LossScale, TrainState
from resnet_jax.training.step import all_finite, eval_step, train_step

CLASSES, SIZE = 5, 8


def batches(count, batch_size=16, dtype=np.float32):
    draws = np.random.default_rng(0)
    for _ in range(count):
        label = draws.integers(CLASSES, size=batch_size)
        image = draws.normal(size=(batch_size, SIZE, SIZE, 3)) + label[:, None, None, None] / 2
        yield {
            "image": image.astype(dtype),
            "label": label.astype(np.int32),
            "mask": np.ones(batch_size, bool),
        }


def augment(batch, seed):
    del seed
    return batch["image"], jax.nn.one_hot(batch["label"], CLASSES, dtype=batch["image"].dtype)


def network(precision="float32", **fields):
    dtype, param_dtype = config_lib.PRECISIONS[precision]
    return create_model(
        "resnet18",
        num_classes=CLASSES,
        stem="small",
        width=4,
        stage_sizes=(1,),
        dtype=dtype,
        param_dtype=param_dtype,
        **fields,
    )


class Training:
    """A net on some devices; `take` trains it for a number of steps and returns the losses."""

    def __init__(
        self,
        devices=1,
        precision="float32",
        accumulate_steps=1,
        rate=0.05,
        batch_size=16,
        optimizing=(),
        **fields,
    ):
        self.mesh = make_mesh(jax.devices()[:devices])
        self.batch_size = batch_size
        self.dtype = np.float64 if precision == "float64" else np.float32
        config = config_lib.defaults()
        config.optimizer.update(dict(optimizing))
        schedule = rate if callable(rate) else lambda step: jnp.asarray(rate, self.dtype)
        update = optimizer.make_optimizer(config.optimizer, schedule)
        model = network(precision, **fields)
        variables = model.init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3)), train=False)
        state = TrainState(
            step=jnp.int32(0),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=update.init(variables["params"]),
            loss_scale=LossScale.create() if precision == "float16" else None,
            seed=seed_words(0),
        )
        whole, rows = replicated(self.mesh), split_by_batch(self.mesh)
        self.state = jax.device_put(state, whole)
        step = functools.partial(
            train_step,
            model=model,
            optimizer=update,
            augment=augment,
            loss=loss.make_loss(config.loss),
            schedule=schedule,
            accumulate_steps=accumulate_steps,
        )
        self.step = jax.jit(step, in_shardings=(whole, rows), out_shardings=whole, donate_argnums=0)

    def take(self, count):
        losses = []
        for batch in batches(count, self.batch_size, self.dtype):
            self.state, metrics = self.step(self.state, shard_batch(self.mesh, batch))
            losses.append(float(metrics.sums["loss"]) / self.batch_size)
        return losses

    def compiled(self):
        batch = shard_batch(self.mesh, next(batches(1, self.batch_size, self.dtype)))
        return self.step.lower(self.state, batch).compile()


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def assert_close(tree, expected, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        tree,
        expected,
    )


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("group", [None, 4])
def test_eight_devices_learn_what_one_learns_in_float64(group):
    one, eight = (Training(devices, "float64", norm_group_size=group) for devices in (1, 8))
    np.testing.assert_allclose(eight.take(20), one.take(20), rtol=1e-9)
    assert_close(eight.state.eval_variables, one.state.eval_variables, 1e-9)


def test_eight_devices_learn_what_one_learns_over_the_first_steps_in_float32():
    one, eight = Training(1), Training(8)
    np.testing.assert_allclose(eight.take(5), one.take(5), rtol=1e-5)
    assert_close(eight.state.eval_variables, one.state.eval_variables, 1e-5)


@pytest.mark.parametrize(
    ("fields", "accumulate_steps"), [({}, 1), ({"norm_group_size": 2}, 1), ({}, 2)]
)
def test_the_compiled_step_adds_up_over_devices_and_moves_nothing_else(fields, accumulate_steps):
    text = Training(8, accumulate_steps=accumulate_steps, **fields).compiled().as_text()
    used = set(
        re.findall(
            r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(",
            text,
        )
    )
    assert used == {"all-reduce"}


def test_statistics_of_a_devices_own_images_need_no_messages_in_the_forward_pass():
    def messages(**fields):
        return len(
            re.findall(r"\ball-reduce(?:-start)?\(", Training(8, **fields).compiled().as_text())
        )

    assert messages(norm_group_size=2) < messages()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("mapped", ["shard_map", "pmap"])
def test_axis_name_gives_the_callers_own_mapping_the_statistics_of_the_whole(mapped):
    images = next(batches(1, dtype=np.float64))["image"]
    variables = network("float64").init(jax.random.key(0), images, train=False)
    expected, changes = network("float64").apply(
        variables, images, train=True, mutable=["batch_stats"]
    )
    mine = network("float64", axis_name="data")

    def forward(variables, images):
        return mine.apply(variables, images, train=True, mutable=["batch_stats"])

    if mapped == "pmap":
        split = images.reshape(4, -1, *images.shape[1:])
        logits, stats = jax.pmap(forward, axis_name="data", in_axes=(None, 0))(variables, split)
        logits, stats = logits.reshape(expected.shape), jax.tree.map(lambda leaf: leaf[0], stats)
    else:
        mesh, rows, whole = make_mesh(jax.devices()[:4]), PartitionSpec("data"), PartitionSpec()
        logits, stats = jax.jit(
            jax.shard_map(forward, mesh=mesh, in_specs=(whole, rows), out_specs=(rows, whole))
        )(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)
    assert_close(stats["batch_stats"], changes["batch_stats"], 1e-9)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("devices", [1, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts, devices):
    whole, split = (
        Training(devices, "float64", norm="none", accumulate_steps=count) for count in (1, parts)
    )
    np.testing.assert_allclose(split.take(5), whole.take(5), rtol=1e-9)
    assert_close(split.state.params, whole.state.params, 1e-9)


@pytest.mark.usefixtures("double")
def test_accumulation_normalises_each_part_by_itself():
    """With norm_group_size = the size of a part, the whole batch and its parts see the same
    statistics.
    """
    order = np.arange(16).reshape(8, 2).T.reshape(-1)  # part i is the rows i, i + 2, ...
    whole, split = (
        Training(1, "float64", accumulate_steps=count, norm_group_size=group)
        for count, group in ((1, 8), (2, None))
    )
    batch = next(batches(1, dtype=np.float64))
    by_parts = {name: rows[order] for name, rows in batch.items()}
    after = [
        training.step(training.state, rows)[0]
        for training, rows in ((whole, by_parts), (split, batch))
    ]
    assert_close(after[1].params, after[0].params, 1e-9)


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.06), ("float16", 0.03)])
def test_half_precision_stays_near_float32_over_fifty_steps(precision, tolerance):
    full, half = Training(batch_size=32), Training(batch_size=32, precision=precision)
    expected, losses = full.take(50), half.take(50)
    assert np.isfinite(losses).all()
    assert np.mean(losses[:5]) > 1.3 * np.mean(losses[-5:])
    assert np.abs(np.subtract(losses, expected)).mean() < tolerance
    leaves = jax.tree.leaves((half.state.params, half.state.batch_stats, half.state.opt_state))
    assert {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)} == {
        jnp.dtype("float32")
    }


def test_a_step_that_overflows_in_float16_is_skipped_and_the_scale_halved():
    training = Training(precision="float16")
    # With this scale the scaled loss, and so every gradient, is infinite.
    huge = LossScale(jnp.float32(3e38), jnp.int32(5))
    training.state = training.state.replace(
        loss_scale=jax.device_put(huge, replicated(training.mesh))
    )
    before = jax.tree.map(np.array, training.state)
    after, metrics = training.step(training.state, next(batches(1)))
    assert_close((after.params, after.batch_stats), (before.params, before.batch_stats), 0)
    assert float(after.loss_scale.scale) == LossScale.LARGEST
    assert {name: float(total) for name, total in metrics.sums.items()} == dict.fromkeys(
        ("loss", "top1", "top5", "examples"), 0
    )
    assert int(after.loss_scale.good_steps) == 0
    assert int(after.step) == 1


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_that_was_skipped_counts_for_the_schedule(name):
    def schedule(step):
        return jnp.where(step < 3, 0.05, 0.0)

    training = Training(precision="float16", rate=schedule, optimizing={"name": name})
    huge = LossScale(jnp.float32(3e38), jnp.int32(5))
    training.state = training.state.replace(
        loss_scale=jax.device_put(huge, replicated(training.mesh))
    )
    training.take(1)
    sound = LossScale(jnp.float32(1024), jnp.int32(0))
    training.state = training.state.replace(
        loss_scale=jax.device_put(sound, replicated(training.mesh))
    )
    snapshots = []
    for _ in range(3):
        snapshots.append(jax.tree.map(np.array, training.state.params))
        training.take(1)
    snapshots.append(jax.tree.map(np.array, training.state.params))
    moved = [
        any((one != other).any() for one, other in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in itertools.pairwise(snapshots)
    ]
    assert moved == [True, True, False]


def test_the_loss_scale_doubles_after_many_good_steps():
    scale = LossScale(jnp.float32(1024), jnp.int32(LossScale.GROW_AFTER - 1))
    assert float(scale.after(jnp.bool_(True)).scale) == 2048
    assert int(scale.after(jnp.bool_(True)).good_steps) == 0
    assert float(scale.after(jnp.bool_(False)).scale) == 512


@pytest.mark.parametrize("scale", [2.0**16, LossScale.LARGEST, 2.0**100, float("inf")])
def test_a_loss_scale_never_grows_past_what_it_comes_back_from(scale):
    """Where gradients are zero every step is good."""
    loss_scale = LossScale(jnp.float32(scale), jnp.int32(0))
    for _ in range(10):
        loss_scale = loss_scale.replace(good_steps=jnp.int32(LossScale.GROW_AFTER - 1))
        loss_scale = loss_scale.after(jnp.bool_(True))
    assert float(loss_scale.scale) == LossScale.LARGEST
    for _ in range(24):
        loss_scale = loss_scale.after(jnp.bool_(False))
    assert float(loss_scale.scale) == 1


def test_a_loss_that_is_not_finite_is_told():
    training = Training()
    batch = next(batches(1))
    batch["image"][0, 0, 0, 0] = np.nan
    _, metrics = training.step(training.state, batch)
    assert not metrics.is_finite


def test_the_step_gives_the_memory_of_the_old_state_to_the_new_one():
    training = Training()
    before = training.state
    training.take(1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


def test_evaluation_scores_the_rows_that_count_against_their_own_labels():
    model = network()
    batch = next(batches(1))
    variables = model.init(jax.random.key(0), batch["image"], train=False)
    batch["mask"][10:] = False
    logits = np.asarray(model.apply(variables, batch["image"], train=False))
    metrics = eval_step(
        variables,
        batch,
        model=model,
        normalise=lambda images: images,
        loss=loss.softmax_cross_entropy,
    )
    labels = batch["label"][:10]
    likelihoods = jax.nn.log_softmax(logits[:10])[np.arange(10), labels]
    assert float(metrics.sums["loss"]) == pytest.approx(-float(likelihoods.sum()), rel=1e-5)
    assert int(metrics.sums["top1"]) == int((logits[:10].argmax(-1) == labels).sum())
    assert int(metrics.sums["examples"]) == 10


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1, 2**32 + 5, 2**63 - 1])
@pytest.mark.parametrize("wide", [False, True])
def test_the_seed_as_data_gives_the_key_that_jax_gives_for_it(seed, wide):
    with jax.enable_x64(wide):
        key = jax.jit(seed_key)(seed_words(seed))
        expected = jax.random.key(seed)
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))


def test_another_seed_compiles_nothing_again():
    training = Training(dropout=0.5)
    batch = shard_batch(training.mesh, next(batches(1)))
    after = []
    for seed in (0, 0, 2**32 - 1):
        state = jax.tree.map(jnp.copy, training.state)
        words = jax.device_put(seed_words(seed), replicated(training.mesh))
        after.append(training.step(state.replace(seed=words), batch)[0].params["fc"]["kernel"])
    np.testing.assert_array_equal(after[0], after[1])
    assert (np.asarray(after[0]) != np.asarray(after[2])).any()
    assert training.step._cache_size() == 1


@pytest.mark.parametrize("value", [1e30, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_one_number_that_is_not_finite_is_seen_wherever_it_stands(name, value):
    tree = {"kernel": np.ones((3, 3, 2, 4), np.float32), "bias": np.ones(4, np.float32)}
    tree[name].flat[-2] = value
    assert all_finite(tree) == np.isfinite(value)
