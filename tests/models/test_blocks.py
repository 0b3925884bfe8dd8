"""Residual blocks: identity at the start, gradients everywhere, shortcuts A to D, dropped
branches.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import BasicBlock, BottleneckBlock, ResNet
from resnet_jax.models.layers import drop_branch, widen_identity
from resnet_jax.models.pools import average_ahead, average_pool, blur, global_mean


def non_negative(shape=(2, 6, 6, 16), seed=0):
    return jnp.abs(jax.random.normal(jax.random.key(seed), shape))


def start(block, x):
    variables = jax.jit(lambda x: block.init(jax.random.key(1), x))(x)
    return variables, jax.jit(block.apply)(variables, x)


@pytest.mark.parametrize("version", ["v1", "v1.5", "v2"])
@pytest.mark.parametrize("kind", [BasicBlock, BottleneckBlock])
def test_zero_initialised_blocks_start_as_the_identity(kind, version):
    x = non_negative()
    block = kind(features=16 if kind is BasicBlock else 4, version=version, se_ratio=0.25)
    np.testing.assert_array_equal(start(block, x)[1], x)


def test_without_normalisation_the_last_kernel_starts_at_zero():
    x = non_negative()
    np.testing.assert_array_equal(start(BasicBlock(features=16, norm=None), x)[1], x)


@pytest.mark.parametrize("fields", [{"zero_init": False}, {"residual": False}])
def test_other_blocks_start_neither_as_the_identity_nor_dead(fields):
    x = non_negative()
    y = start(BasicBlock(features=16, **fields), x)[1]
    assert np.abs(y - x).max() > 0.1
    assert np.abs(y).max() > 0.1


def gradients(**fields):
    model = ResNet(stage_sizes=(1, 1), width=8, stem="small", num_classes=3, **fields)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))

    def loss(params, stats):
        logits, _ = model.apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(jax.nn.log_softmax(logits)[:, 0])

    # Drawn by NumPy: compiling `init` would take longer than the rest of the test.
    shapes = jax.eval_shape(model.init, jax.random.key(2), x)
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: draw.uniform(-0.2, 0.3, leaf.shape).astype(np.float32), shapes["params"]
    )
    stats = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes["batch_stats"])
    found = jax.jit(jax.grad(loss))(params, stats)
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(found)}


@pytest.mark.parametrize(
    "fields",
    [
        {"zero_init": False, "version": "v2", "se_ratio": 0.5},
        {"zero_init": False, "shortcut": "C", "block": "basic"},
        {"residual": False, "block": "basic"},
    ],
)
def test_gradients_reach_every_parameter(fields):
    dead = [name for name, leaf in gradients(**fields).items() if not np.abs(leaf).max() > 0]
    assert dead == []


@pytest.mark.parametrize("pool", [False, True])
def test_option_a_takes_pixels_or_averages_and_adds_zero_channels(pool):
    x = non_negative((1, 5, 4, 3))
    y = widen_identity(x, 7, 2, pool=pool)
    assert y.shape == (1, 3, 2, 7)
    np.testing.assert_array_equal(y[..., 3:], 0)
    np.testing.assert_allclose(y[..., :3], average_pool(x, 2) if pool else x[:, ::2, ::2])


def test_average_pool_at_an_odd_edge_averages_the_pixels_there_are():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(average_pool(x, 2)[0, ..., 0], [[2, 3.5], [6.5, 8]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "pool",
    [lambda x: average_pool(x, 2), average_ahead, lambda x: blur(x, 2), global_mean],
    ids=["average_pool", "average_ahead", "blur", "global_mean"],
)
def test_pools_add_in_float32_or_better_and_a_map_keeps_its_type(pool, dtype):
    # In float16 the sum of four is beyond its range.
    value = {"float16": 40_000.0, "bfloat16": 256.0}.get(dtype, 1.0)
    with jax.enable_x64(True):
        x = jnp.full((1, 6, 6, 3), value, dtype)
        y = pool(x)
        other = jax.random.uniform(jax.random.key(0), (1, 6, 6, 3), dtype, 0.5, 1)
        exact = pool(other.astype("float64"))
        np.testing.assert_allclose(pool(other), exact.astype(y.dtype), rtol=1e-6)
    wide = jnp.promote_types(dtype, "float32")
    assert y.dtype == (wide if y.ndim == 2 else dtype)
    inside = y if y.ndim == 2 else y[:, 1:-1, 1:-1]
    np.testing.assert_array_equal(np.asarray(inside, np.float64), value)


@pytest.mark.parametrize(
    "fields",
    [{"shortcut": "A_pool"}, {"anti_alias": "average"}, {"anti_alias": "blur"}],
)
def test_maps_have_the_type_of_the_computation_whatever_pools_them(fields):
    model = ResNet(
        stage_sizes=(1, 1), block="basic", width=8, stem="small", dtype="bfloat16", **fields
    )
    images = jnp.zeros((1, 8, 8, 3))
    maps, _ = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, method="features"), images
    )
    assert {found.dtype for found in maps.values()} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("shortcut", "names"),
    [
        ("A", set()),
        ("A_pool", set()),
        ("B", {"layer2_0/downsample_0"}),
        ("C", {"layer1_0/downsample_0", "layer2_0/downsample_0", "layer2_1/downsample_0"}),
        ("D", {"layer2_0/downsample_1"}),
    ],
)
def test_projections_are_where_the_option_puts_them(shortcut, names):
    model = ResNet(stage_sizes=(1, 2), block="basic", width=8, stem="small", shortcut=shortcut)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    )
    found = {
        f"{block}/{layer}"
        for block, layers in shapes["params"].items()
        for layer, leaves in layers.items()
        if "downsample" in layer and "kernel" in leaves
    }
    assert found == names


def test_a_dropped_branch_is_gone_for_whole_images_and_its_mean_is_kept():
    branch = jnp.ones((4000, 2, 2, 1))
    dropped = np.asarray(drop_branch(branch, 0.25, jax.random.key(0)))
    images = dropped.reshape(4000, 4)
    assert (images == images[:, :1]).all()
    np.testing.assert_allclose(np.unique(images), [0, 4 / 3], rtol=1e-6)
    assert dropped.mean() == pytest.approx(1, abs=0.03)


def test_stochastic_depth_and_dropout_act_in_training_only_and_need_their_rng():
    model = ResNet(
        stage_sizes=(2,), block="basic", width=8, stem="small", num_classes=3, zero_init=False,
        stochastic_depth=0.5, dropout=0.5, norm="none",
    )  # fmt: skip
    x = non_negative((4, 8, 8, 3))
    variables = jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)
    train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}))
    assert not np.allclose(train(jax.random.key(0)), train(jax.random.key(1)))
    plain = model.clone(stochastic_depth=0.0, dropout=0.0)
    evaluate = jax.jit(lambda x: (model.apply(variables, x), plain.apply(variables, x, train=True)))
    np.testing.assert_array_equal(*evaluate(x))
    with pytest.raises(Exception, match="dropout"):
        model.apply(variables, x, train=True)


def test_group_norm_is_the_definition():
    from resnet_jax.models.layers import GroupNorm

    x = np.random.default_rng(0).normal(3, 2, (2, 4, 5, 6)).astype(np.float32)
    norm = GroupNorm(groups=3)
    y = norm.apply(norm.init(jax.random.key(0), x, train=False), x, train=True)
    grouped = x.reshape(2, 4, 5, 3, 2)
    mean, var = grouped.mean((1, 2, 4), keepdims=True), grouped.var((1, 2, 4), keepdims=True)
    np.testing.assert_allclose(
        y, ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape), atol=1e-5
    )
