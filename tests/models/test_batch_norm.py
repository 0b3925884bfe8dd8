"""BatchNorm against its definition in float64, its scopes, and its precision far from zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from resnet_jax.errors import UserError
from resnet_jax.models.layers import BatchNorm
from resnet_jax.ops.batch_norm import batch_normalize


@pytest.fixture(params=["cpu", "cuda", "tpu"], autouse=True)
def platform(request, monkeypatch):
    """Every test holds for each platform's form, all of which run here."""

    def choose(*operands, default, **forms):
        return forms.get(request.param, default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)


def images(shape=(8, 5, 6, 3), mean=0.0, seed=0):
    return np.random.default_rng(seed).normal(mean, 1.5, shape)


def train(x, norm=None, variables=None):
    norm = norm or BatchNorm()
    x = jnp.asarray(x, jnp.float32)
    variables = variables or norm.init(jax.random.key(0), x, train=False)
    return norm.apply(variables, x, train=True, mutable=["batch_stats"])


def test_normalises_by_the_biased_variance_and_runs_the_unbiased_one():
    x = images()
    y, state = train(x, BatchNorm(momentum=0.9))
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-5, atol=1e-5)
    count = x.shape[0] * x.shape[1] * x.shape[2]
    stats = state["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var * count / (count - 1), rtol=1e-5)


def test_evaluation_uses_the_running_statistics():
    x = images()
    variables = {
        "params": {"scale": jnp.array([1.0, 2, 3]), "bias": jnp.array([0.0, 1, -1])},
        "batch_stats": {"mean": jnp.array([1.0, 0, -2]), "var": jnp.array([4.0, 1, 0.25])},
    }
    y = BatchNorm().apply(variables, jnp.asarray(x, jnp.float32), train=False)
    expected = (x - [1, 0, -2]) / np.sqrt(np.array([4, 1, 0.25]) + 1e-5) * [1, 2, 3] + [0, 1, -1]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_groups_of_images_have_their_own_statistics_and_the_running_ones_are_their_mean():
    x = images()
    y, state = train(x, BatchNorm(group_size=2))
    parts = [train(x[i : i + 2]) for i in range(0, 8, 2)]
    np.testing.assert_allclose(y, np.concatenate([part for part, _ in parts]), atol=1e-6)
    for name in ("mean", "var"):
        expected = np.mean([part["batch_stats"][name] for _, part in parts], 0)
        np.testing.assert_allclose(state["batch_stats"][name], expected, rtol=1e-5, atol=1e-6)


def test_a_batch_that_the_group_does_not_divide_names_the_field():
    with pytest.raises(UserError, match=r"model\.norm_group_size = 3 .*8 images"):
        train(images(), BatchNorm(group_size=3))


def test_axis_name_gives_a_mapped_batch_the_statistics_of_the_whole():
    x = jnp.asarray(images(), jnp.float32)
    norm = BatchNorm(axis_name="shards")
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    whole, whole_state = train(x, variables=variables)
    apply = functools.partial(norm.apply, variables, train=True, mutable=["batch_stats"])
    parts, state = jax.vmap(apply, axis_name="shards")(x.reshape(4, 2, *x.shape[1:]))
    np.testing.assert_allclose(parts.reshape(x.shape), whole, atol=1e-6)
    for name in ("mean", "var"):
        for shard in state["batch_stats"][name]:
            np.testing.assert_allclose(
                shard, whole_state["batch_stats"][name], rtol=1e-6, atol=1e-7
            )


@pytest.mark.parametrize(
    ("mean", "warm", "tolerance"), [(0, False, 2e-6), (100, False, 2e-3), (1e4, True, 2e-3)]
)
def test_variance_of_values_far_from_zero(mean, warm, tolerance):
    x = images((16, 14, 14, 4), mean).astype(np.float32)
    variables = BatchNorm().init(jax.random.key(0), jnp.asarray(x), train=False)
    if warm:
        variables["batch_stats"]["mean"] = jnp.full(4, mean + 0.3, jnp.float32)
    norm = BatchNorm(momentum=0.0)
    _, state = train(x, norm, variables)
    exact = x.astype(np.float64).var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(state["batch_stats"]["var"], exact, rtol=tolerance)


def test_gradient_is_that_of_the_definition():
    x = jnp.asarray(images(mean=3.0), jnp.float32)
    weights = jnp.asarray(images(seed=1), jnp.float32)
    variables = BatchNorm().init(jax.random.key(0), x, train=False)

    def ours(x):
        return jnp.sum(weights * train(x, variables=variables)[0])

    def definition(x):
        mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        return jnp.sum(weights * (x - mean) / jnp.sqrt(var + 1e-5))

    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(definition)(x), atol=2e-5)


@pytest.mark.parametrize("groups", [1, 4])
def test_derivatives_of_every_output_are_right_forward_backward_and_twice(groups):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, scale, bias, about = (rng.normal(size=shape) for shape in ((8, 3, 2, 3), 3, 3, 3))

        def outputs(x, scale, bias):
            return batch_normalize(x, scale, bias, about, groups, 1e-3, None)

        check_grads(outputs, (x, scale, bias), order=2, modes=("fwd", "rev"), rtol=1e-5)


def test_gradients_over_a_mapped_axis_are_those_of_the_whole_batch():
    mesh = jax.make_mesh((4,), ("shards",), axis_types=(AxisType.Auto,))
    x, weights = (jnp.asarray(images(seed=seed), jnp.float32) for seed in (0, 1))
    scale, bias, about = jnp.full(x.shape[-1], 1.5), jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1])

    def gradients(x, weights, axis_name=None):
        def loss(x, scale):
            return jnp.sum(weights * batch_normalize(x, scale, bias, about, 1, 1e-5, axis_name)[0])

        return jax.grad(loss, (0, 1))(x, scale)

    shard = jax.shard_map(
        functools.partial(gradients, axis_name="shards"),
        mesh=mesh,
        in_specs=P("shards"),
        out_specs=(P("shards"), P()),
    )
    for parts, whole in zip(jax.jit(shard)(x, weights), gradients(x, weights), strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_statistics_are_float32_in_half_precision(dtype):
    norm = BatchNorm(dtype=jnp.dtype(dtype))
    x = jnp.asarray(images(), dtype)
    variables = norm.init(jax.random.key(0), x, train=False)
    y, state = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, state))} == {jnp.dtype("float32")}
