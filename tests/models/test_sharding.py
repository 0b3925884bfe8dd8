"""The network on a batch that lies on several devices: the same results, by all-reduces alone."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from resnet_jax.models import ResNet

TINY = {"stage_sizes": (2, 1), "block": "basic", "width": 8, "stem": "small", "num_classes": 3}
DEVICES = 4

pytestmark = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices, fake ones will do"
)


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh(
        (DEVICES,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:DEVICES]
    )


@pytest.fixture(scope="module")
def setting():
    x = jax.random.normal(jax.random.key(0), (2 * DEVICES, 8, 8, 3))
    variables = jax.jit(ResNet(**TINY).init)(jax.random.key(1), x)
    # The branches start at zero; moved off it, every layer tells.
    params = jax.tree.map(lambda leaf: leaf + 0.05, variables["params"])
    return {"params": params, "batch_stats": variables["batch_stats"]}, x


def train(model, variables, x):
    def loss(params):
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, changed = model.apply(state, x, train=True, mutable=["batch_stats"])
        return jnp.mean(jax.nn.logsumexp(logits, 1) - logits[:, 0]), (logits, changed)

    return jax.grad(loss, has_aux=True)(variables["params"])


def assert_close(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_axis_name_under_shard_map_gives_the_whole_batchs_statistics(mesh, setting):
    variables, x = setting
    model = ResNet(**TINY, axis_name="batch")

    def forward(model, variables, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    mapped = jax.shard_map(
        lambda variables, x: forward(model, variables, x),
        mesh=mesh,
        in_specs=(P(), P("batch")),
        out_specs=(P("batch"), P()),
    )
    whole = jax.jit(lambda variables, x: forward(ResNet(**TINY), variables, x))(variables, x)
    assert_close(jax.jit(mapped)(variables, x), whole)


@pytest.mark.parametrize("group", [None, 2])
def test_a_sharded_batch_under_jit_needs_all_reduces_only(mesh, setting, group):
    variables, x = setting
    model = ResNet(**TINY, norm_group_size=group)
    step = jax.jit(lambda variables, x: train(model, variables, x))
    sharded = jax.device_put(x, NamedSharding(mesh, P("batch")))
    replicated = jax.device_put(variables, NamedSharding(mesh, P()))
    assert_close(step(replicated, sharded), step(variables, x))
    text = step.lower(replicated, sharded).compile().as_text()
    # Of several arrays at once the result is a tuple; of asynchronous ones the name ends in -start.
    kinds = "all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce"
    found = set(re.findall(rf"[\])}}] ({kinds})(?:-start)?\(", text))
    assert found == {"all-reduce"}
