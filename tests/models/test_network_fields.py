"""Fields of the modules: stated once, checked wherever they are set; and what an import loads."""

import dataclasses
import functools
import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import ResNet, UserError, create_model
from resnet_jax.models import BasicBlock, BottleneckBlock
from resnet_jax.models.layers import GroupNorm

TINY = {"stage_sizes": (1, 1), "block": "basic", "width": 8, "stem": "small", "num_classes": 3}


@pytest.mark.parametrize("module", [ResNet, BasicBlock, BottleneckBlock])
def test_every_field_states_its_help_and_its_documentation_shows_it(module):
    documentation = " ".join(inspect.getdoc(module.__mro__[module is not ResNet]).split())
    for field in dataclasses.fields(module):
        if field.name not in ("parent", "name"):
            assert f"{field.name}: {field.metadata['field'].help}" in documentation


def test_a_factory_in_place_of_a_norms_name_gives_the_same_network():
    named = ResNet(**TINY, norm="group", norm_channel_groups=4, dtype="bfloat16")
    made = ResNet(**TINY, norm=functools.partial(GroupNorm, groups=4), dtype="bfloat16")
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    one, other = (jax.jit(net.init_with_output)(jax.random.key(1), x) for net in (named, made))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_norm_of_the_users_own_is_called_with_train():
    class Shift(nn.Module):
        scale_init: object
        dtype: object
        param_dtype: object

        @nn.compact
        def __call__(self, x, *, train):
            shift = self.param("shift", nn.initializers.ones, (), self.param_dtype)
            return (x + shift if train else x).astype(self.dtype)

    model = ResNet(**TINY, norm=Shift)
    x = jnp.zeros((1, 8, 8, 3))
    variables = model.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    assert not np.array_equal(model.apply(variables, x), model.apply(variables, x, train=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BasicBlock(8, version="v3"), "BasicBlock.version = 'v3': must be one of v1, "),
        (lambda: BasicBlock(8, groups=2), "BasicBlock.groups = 2: basic blocks have no groups"),
        (lambda: BottleneckBlock(0), "BottleneckBlock.features = 0: must be at least 1"),
        (lambda: BottleneckBlock(6, groups=4, width_per_group=50), "BottleneckBlock.groups = 4: "),
        (
            lambda: BottleneckBlock(64, groups=8, width_per_group=3, reduce_first=2),
            "BottleneckBlock.groups = 8: does not divide the 12 channels",
        ),
        (lambda: BasicBlock(8, norm="layer"), "BasicBlock.norm = 'layer': must be one of batch, "),
        (lambda: BasicBlock(8, dtype="int8"), "BasicBlock.dtype = 'int8': must be one of float32"),
        (lambda: BasicBlock(8, norm=GroupNorm, axis_name="i"), "BasicBlock.axis_name = 'i': "),
    ],
)
def test_blocks_check_their_fields_when_used_alone(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shortcut": "A"}, "shortcut = 'A': cannot go from 16 channels down to 8"),
        ({"norm": "group"}, "norm_channel_groups = 32: does not divide the 8 channels"),
    ],
)
def test_a_block_that_does_not_fit_its_input_says_so_at_the_call(fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(BasicBlock(8, **fields).init, jax.random.key(0), jnp.zeros((1, 4, 4, 16)))


def test_numbers_and_dtypes_of_numpy_are_numbers_and_dtypes():
    model = create_model(
        "resnet18",
        width=np.int64(8),
        num_classes=np.int32(3),
        stage_sizes=np.array([1, 2]),
        dropout=np.float32(0.5),
        conv_bias=np.True_,
        dtype=np.dtype("float16"),
        param_dtype=np.float32,
    )
    same = create_model(
        "resnet18",
        width=8,
        num_classes=3,
        stage_sizes=[1, 2],
        dropout=0.5,
        conv_bias=True,
        dtype="float16",
    )
    assert (model, hash(model)) == (same, hash(same))
    assert type(model.width) is int


def test_importing_the_networks_loads_jax_and_flax_and_nothing_that_they_do_not_use():
    code = (
        "import sys, jax, flax.linen; before = set(sys.modules);"
        "from resnet_jax.models import ResNet; print(*set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in run.stdout.split() if name.split(".")[0] == "resnet_jax"}
    others = set(run.stdout.split()) - loaded
    assert "resnet_jax.models.resnet" in loaded
    assert not {name for name in loaded if {"interop", "analysis"} & set(name.split("."))}
    assert not {name.split(".")[0] for name in others} - {"jax", "flax"} - sys.stdlib_module_names


def test_the_example_of_the_public_interface_runs(capsys):
    example = Path(__file__).parents[2] / "examples" / "public_api.py"
    runpy.run_path(str(example))["main"]()
    assert "no/such/run" in capsys.readouterr().out.splitlines()[-1]
