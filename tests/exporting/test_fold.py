"""BatchNorm folded into convolutions: the same function, and what cannot be folded is counted."""

import jax
import numpy as np
import pytest
from exported import random_network

from resnet_jax import UserError
from resnet_jax.models.interop.fold import fold

# What is left: a v2 net's layers that follow a sum.
NETS = {
    "every conv and norm of a deep stem, a gate and a blur": (
        {"block": "basic", "stem": "deep", "stem_pool": "conv", "shortcut": "D"}
        | {"se_ratio": 0.25, "anti_alias": "blur", "standardize": True},
        (),
    ),
    "a v2 net": (
        {"version": "v2", "stem": "tiered", "stem_width": 16, "stem_pool": "conv"}
        | {"block": "basic", "conv_bias": True},
        ("layer1_0/bn1", "layer2_0/bn1", "norm"),
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_a_folded_network_computes_the_same(name):
    fields, kept = NETS[name]
    model, variables, _ = random_network(**fields)
    folded = fold(model, variables)
    assert folded.kept == kept
    layers = len(jax.tree.leaves(variables["batch_stats"])) // 2
    assert folded.count == layers - len(kept)
    assert len(jax.tree.leaves(folded.variables.get("batch_stats", {}))) == 2 * len(kept)
    images = np.random.default_rng(1).normal(size=(2, 21, 30, 3)).astype(np.float32)
    expected = jax.jit(model.apply)(variables, images)
    found = jax.jit(folded.model.apply)(folded.variables, images)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_network_without_batch_norm_is_not_folded():
    model, variables, _ = random_network(norm="group", norm_channel_groups=4)
    with pytest.raises(UserError, match="norm = 'group' leaves no BatchNorm to fold"):
        fold(model, variables)
