"""Under `jax.export`: sizes left open, for three platforms, in training and in evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from resnet_jax import ResNet, UserError

TINY = {"stage_sizes": (1, 1), "width": 8, "num_classes": 3}
PLATFORMS = ("cpu", "cuda", "tpu")
NETS = {
    "basic": {"block": "basic"},
    "v2": {"version": "v2", "stem": "deep", "shortcut": "D", "dtype": "bfloat16"},
    "gates": {"stem": "deep", "stem_pool": "conv", "se_ratio": 0.25, "shortcut": "A"},
    "blur": {"block": "basic", "anti_alias": "blur", "eca": True},
    "average": {"block": "basic", "anti_alias": "average", "output_stride": 4},
    "bit": {
        "version": "v2",
        "norm": "group",
        "norm_channel_groups": 4,
        "standardize": True,
        "stem_pool": "max_zeros",
    },
}


def exported(function, variables, *sizes):
    image = jax.ShapeDtypeStruct((*sizes, 3), jnp.float32)
    return export.export(jax.jit(function), platforms=PLATFORMS)(variables, image)


def sizes(*names, least=32):
    return export.symbolic_shape(", ".join(names), constraints=[f"{n} >= {least}" for n in "hw"])


@pytest.mark.parametrize("net", NETS)
def test_evaluation_leaves_batch_height_and_width_open(net):
    model = ResNet(**TINY, **NETS[net])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 33, 46, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    open_ = exported(model.apply, variables, *sizes("b", "h", "w"))
    expected = jax.jit(model.apply)(variables, x)
    tolerance = 0.05 if model.dtype == jnp.bfloat16 else 1e-4
    np.testing.assert_allclose(open_.call(variables, x), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("net", NETS)
def test_gradients_leave_the_batch_open(net):
    model = ResNet(**TINY, **NETS[net])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

    def gradients(variables, x):
        def loss(params):
            return model.apply({**variables, "params": params}, x, True, mutable=True)[0].sum()

        return jax.grad(loss)(variables["params"])

    (b,) = export.symbolic_shape("b")
    assert len(exported(gradients, shapes, b, 32, 32).out_avals) == len(
        jax.tree.leaves(shapes["params"])
    )


def test_a_batch_of_which_nothing_is_known_is_no_multiple_of_the_norms_group():
    model = ResNet(**TINY, norm_group_size=2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))

    def train(variables, x):
        return model.apply(variables, x, True, mutable=["batch_stats"])

    (b,) = export.symbolic_shape("b")
    with pytest.raises(UserError, match=r"model\.norm_group_size = 2 does not divide a batch of b"):
        exported(train, shapes, b, 32, 32)
