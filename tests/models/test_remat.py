"""Blocks and stages computed again in the backward pass: the same numbers, in less memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import ResNet
from resnet_jax.models import BasicBlock

TINY = {"stage_sizes": (3, 2), "block": "basic", "width": 8, "stem": "small", "num_classes": 3}
DROPS = {"stochastic_depth": 0.5, "zero_init": False}


def gradients(model, x):
    variables = jax.jit(model.init)(jax.random.key(0), x)

    def loss(params):
        state = {**variables, "params": params}
        rngs = {"dropout": jax.random.key(1)}
        logits, changed = model.apply(state, x, True, mutable=["batch_stats"], rngs=rngs)
        return jnp.sum(jax.nn.log_softmax(logits)[:, 0]), (logits, changed)

    graded = jax.jit(jax.grad(loss, has_aux=True)).lower(variables["params"]).compile()
    return variables, graded(variables["params"])


@pytest.mark.parametrize(
    "fields", [{}, pytest.param({"scan_blocks": True}, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("remat", ["block", "stage"])
def test_variables_gradients_statistics_and_dropped_branches_are_the_same(remat, fields):
    x = jax.random.normal(jax.random.key(2), (4, 8, 8, 3))
    plain = ResNet(**TINY, **DROPS, **fields)
    one, other = gradients(plain, x), gradients(plain.clone(remat=remat), x)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# The branches' convolutions and the second stage's projection. Two blocks are no loop.
@pytest.mark.parametrize(
    ("network", "again"), [({}, 11), ({"stage_sizes": (2, 2), "scan_blocks": True}, 9)]
)
def test_the_backward_pass_computes_the_blocks_again(network, again):
    x = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)

    def convolutions(**fields):
        model = ResNet(**TINY | network, **fields)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)

        def loss(params, variables, x):
            state = {**variables, "params": params}
            return model.apply(state, x, True, mutable=["batch_stats"])[0].sum()

        traced = jax.jit(jax.grad(loss)).trace(variables["params"], variables, x)
        return traced.lower(lowering_platforms=("tpu",)).as_text().count("stablehlo.convolution")

    assert convolutions(remat="block") == convolutions() + again


@pytest.mark.parametrize("by_position", [True, False])
def test_a_block_under_flaxs_own_remat_trains(by_position):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            if by_position:
                return nn.remat(BasicBlock, static_argnums=(2,))(8)(x, train)
            return BasicBlock(8)(x, train=train)

    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    variables = Two().init(jax.random.key(0), x, True)
    y, changed = Two().apply(variables, x, True, mutable=["batch_stats"])
    (own,) = variables["params"]
    plain = {kind: tree[own] for kind, tree in variables.items()}
    expected, moved = BasicBlock(8).apply(plain, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, expected)
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"][own], moved["batch_stats"])


@pytest.mark.parametrize("call", ["__call__", "features"])
def test_train_goes_by_position_and_by_name(call):
    model = ResNet(**TINY)
    x = jnp.ones((2, 8, 8, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def run(*args, **kwargs):
        def apply(v, x):
            return model.apply(v, x, *args, **kwargs, mutable=["batch_stats"], method=call)

        return jax.eval_shape(apply, variables, x)

    assert run(True) == run(train=True)
