"""Equal blocks as a loop: the same parameter tree, outputs, statistics and gradients as one after
the other.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import ResNet


@pytest.fixture(scope="module")
def nets():
    plain = ResNet(
        stage_sizes=(4, 3), block="basic", shortcut="A", width=8, stem="small", num_classes=3
    )
    scanned = plain.clone(scan_blocks=True)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = jax.jit(lambda key: scanned.init(key, x, train=False))(jax.random.key(0))
    return plain, scanned, x, variables


def test_the_parameter_tree_has_one_entry_a_block(nets):
    plain, _, x, variables = nets
    expected = jax.eval_shape(lambda: plain.init(jax.random.key(0), x, train=False))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), expected)


def test_each_block_is_initialised_by_its_own_key(nets):
    *_, variables = nets
    kernels = [variables["params"][f"layer1_{n}"]["conv1"]["kernel"] for n in (1, 2, 3)]
    assert not np.allclose(kernels[0], kernels[1])
    assert np.std(kernels[2]) == pytest.approx((2 / (9 * 8)) ** 0.5, rel=0.15)


def test_output_statistics_and_gradients_are_those_of_the_plain_loop(nets):
    plain, scanned, x, variables = nets
    params = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])

    def run(model):
        def loss(params):
            state = {"params": params, "batch_stats": variables["batch_stats"]}
            logits, changed = model.apply(state, x, train=True, mutable=["batch_stats"])
            return jnp.sum(jax.nn.log_softmax(logits)[:, 0]), (logits, changed)

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    for one, other in zip(jax.tree.leaves(run(plain)), jax.tree.leaves(run(scanned)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_dropped_branches_differ_from_block_to_block(nets):
    _, scanned, x, variables = nets
    model = scanned.clone(stochastic_depth=0.5)
    params = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])
    state = {"params": params, "batch_stats": variables["batch_stats"]}

    def logits(key):
        return model.apply(state, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    one, other = (jax.jit(logits)(jax.random.key(seed)) for seed in (0, 1))
    assert not np.allclose(one, other)


def test_each_block_of_the_loop_draws_its_own_drops(nets):
    """Each branch is made to add its block's 1 / (share kept): sums tell which blocks were kept."""
    _, scanned, x, variables = nets
    model = scanned.clone(stochastic_depth=0.6)
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    for block in range(4):
        params[f"layer1_{block}"]["bn2"]["bias"] += 1
    state = {"params": params, "batch_stats": variables["batch_stats"]}

    def first_stage(key, x):
        rngs = {"dropout": key}
        found = model.apply(
            state, x, train=True, mutable=["batch_stats"], rngs=rngs, method="features"
        )
        return found[0]["stage1"]

    many = jnp.zeros((512, *x.shape[1:]))
    sums = jax.jit(first_stage)(jax.random.key(0), many)[:, 0, 0, 0]
    # One draw for all blocks, whose rates rise, would keep the first few of them: 4 sums.
    assert len(np.unique(np.round(sums, 3))) > 5


def test_initialising_in_training_mode_moves_no_statistics(nets):
    plain, scanned, x, _ = nets
    expected, found = (
        jax.jit(lambda key, model=model: model.init(key, x, train=True))(jax.random.key(0))[
            "batch_stats"
        ]
        for model in (plain, scanned)
    )
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(one, other)
