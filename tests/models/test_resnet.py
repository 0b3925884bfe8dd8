"""The module: shapes, names, dtypes, features, and what it refuses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import UserError, create_model, list_models
from resnet_jax.models import ResNet

TINY = {"stage_sizes": (1, 2), "block": "basic", "width": 8, "stem": "small", "num_classes": 3}


def tiny(**fields):
    return ResNet(**{**TINY, **fields})


def initial(model, size=8, channels=3, images=2):
    x = jax.random.normal(jax.random.key(1), (images, size, size, channels))
    return x, jax.jit(lambda key: model.init(key, x, train=False))(jax.random.key(0))


def abstract(model, shape=(2, 8, 8, 3)):
    """Returns the shapes of images and variables, computing nothing."""
    x = jax.ShapeDtypeStruct(shape, model.param_dtype)
    return x, jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
def test_published_parameter_counts(name, count):
    _, shapes = abstract(create_model(name), (1, 224, 224, 3))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


def test_parameters_are_named_as_in_torchvision():
    _, variables = abstract(tiny())
    names = {
        "/".join(key.key for key in path)
        for path, _ in jax.tree.leaves_with_path(variables["params"])
    }
    assert {
        "conv1/kernel",
        "bn1/scale",
        "bn1/bias",
        "layer1_0/conv2/kernel",
        "fc/kernel",
        "fc/bias",
    } <= names
    assert {
        "layer2_0/downsample_0/kernel",
        "layer2_0/downsample_1/scale",
        "layer2_1/bn2/bias",
    } <= names
    assert set(variables["batch_stats"]["layer2_0"]) == {"bn1", "bn2", "downsample_1"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_logits_parameters_and_statistics_are_float32_whatever_the_compute_dtype(dtype):
    model = tiny(dtype=dtype)
    x, variables = abstract(model)

    def step(v, x):
        return model.apply(v, x, train=True, mutable=["batch_stats"])

    logits, state = jax.eval_shape(step, variables, x)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, state))} == {jnp.dtype("float32")}
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    assert maps["stage2"].dtype == dtype


def test_float64_goes_all_the_way():
    with jax.enable_x64(True):
        model = tiny(dtype="float64", param_dtype="float64")
        x, variables = abstract(model)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float64")}
        assert jax.eval_shape(model.apply, variables, x).dtype == jnp.float64


@pytest.mark.parametrize("version", ["v1", "v1.5", "v2"])
@pytest.mark.parametrize("stem", ["imagenet", "small", "deep"])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_features_are_as_announced(block, stem, version):
    model = tiny(block=block, stem=stem, version=version, num_classes=0)
    x, variables = abstract(model, (2, 33, 40, 1))
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    info = model.feature_info()
    assert list(info) == ["stem", "stage1", "stage2"]
    expected = {
        n: (2, -(-33 // stride), -(-40 // stride), channels)
        for n, (channels, stride) in info.items()
    }
    assert {name: leaf.shape for name, leaf in maps.items()} == expected


def test_pooled_features_are_the_mean_of_the_last_map():
    model = tiny(num_classes=0, version="v2")
    x, variables = initial(model)
    last = model.apply(variables, x, method="features")["stage2"]
    np.testing.assert_allclose(model.apply(variables, x), last.mean((1, 2)), rtol=1e-6)


def test_the_smallest_image_is_accepted_and_one_pixel_less_names_it():
    model = create_model("resnet18", num_classes=2)
    shape = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 17, 17, 3)), train=False)[0]
    )
    assert shape.shape == (1, 2)
    with pytest.raises(UserError, match=r"images of 16x40: .* at least 17x17"):
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 40, 3)), train=False)
        )


@pytest.mark.parametrize(("output_stride", "side"), [(None, 17), (16, 17), (8, 9)])
def test_the_smallest_image_of_a_network_that_blurs_is_accepted(output_stride, side):
    model = create_model("resnetblur50", num_classes=2, output_stride=output_stride)
    assert model.smallest_image() == side
    jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False)
    )


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match=r"'resnet51' .*resnet50"):
        create_model("resnet51")
    with pytest.raises(UserError, match=r"model\.widht .*did you mean 'width'"):
        create_model("resnet50", widht=3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": "basick"}, "model.block"),
        ({"stage_sizes": ()}, "model.stage_sizes"),
        ({"stage_sizes": (2, 0)}, "model.stage_sizes"),
        ({"groups": 2}, "basic blocks have no groups"),
        ({"width_per_group": 128}, "basic blocks have no groups"),
        (
            {"block": "bottleneck", "width": 6, "groups": 4, "width_per_group": 50},
            "does not divide the channels",
        ),
        ({"block": "bottleneck", "width": 2, "width_per_group": 4}, "model.width_per_group = 4"),
        ({"shortcut": "A", "stem_width": 16}, "model.shortcut = 'A'"),
        ({"residual": False, "stochastic_depth": 0.1}, "model.stochastic_depth"),
        ({"norm": "group"}, "model.norm_channel_groups = 32"),
        ({"norm": "none", "norm_group_size": 2}, "model.norm_group_size = 2"),
        ({"norm_group_size": 2, "axis_name": "data"}, "contradicts axis_name"),
        ({"num_classes": -1}, "model.num_classes = -1"),
        ({"dtype": "float8"}, "model.dtype = 'float8'"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"stem": "deep", "width": 7}, "model.stem_width = 7"),
        ({"width": None}, "model.width = None"),
        ({"output_stride": 3}, "model.output_stride = 3"),
        ({"stem": "tiered", "width": 12}, "model.stem_width = 12"),
        ({"eca": True, "se_ratio": 0.25}, "model.eca = True: contradicts"),
        ({"reduce_first": 3}, "model.reduce_first = 3: does not divide the 8 channels"),
        ({"remat": "all"}, "model.remat"),
    ],
)
def test_contradictory_fields_fail_at_construction(fields, message):
    with pytest.raises(UserError) as caught:
        tiny(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_none_leaves_a_field_as_the_table_has_it():
    assert create_model("resnet18", block=None, width=None) == create_model("resnet18")


def test_names_are_listed_sorted_and_by_pattern():
    assert list_models("resnet1*") == sorted(list_models("resnet1*")) != []
    assert set(list_models("resnet1*")) < set(list_models())


@pytest.mark.parametrize(
    ("fields", "strides", "dilations"),
    [
        ({}, [4, 8, 16, 32], [(1, 1), (1, 1), (1, 1), (1, 1)]),
        ({"output_stride": 16}, [4, 8, 16, 16], [(1, 1), (1, 1), (1, 1), (1, 2)]),
        ({"output_stride": 8}, [4, 8, 8, 8], [(1, 1), (1, 1), (1, 2), (2, 4)]),
    ],
)
def test_dilation_takes_the_place_of_the_strides_beyond_the_output_stride(
    fields, strides, dilations
):
    model = create_model("resnet50", num_classes=0, **fields)
    info = model.feature_info()
    assert [info[f"stage{n}"].stride for n in range(1, 5)] == strides
    x, variables = abstract(model, (1, 64, 96, 3))
    seen = {}

    def record(call, args, kwargs, context):
        if context.method_name == "__call__" and context.module.name == "conv2":
            stage = context.module.path[0].split("_")[0]
            seen.setdefault(stage, []).append(context.module.dilation)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        found = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    assert [found[f"stage{n}"].shape[1:3] for n in range(1, 5)] == [
        (64 // stride, 96 // stride) for stride in strides
    ]
    # The first block of a stage still has the dilation of the stage before.
    assert [(each[0], each[1]) for each in seen.values()] == dilations


def test_dilation_changes_no_parameter():
    plain, dilated = (create_model("resnet18", output_stride=stride) for stride in (None, 8))
    shape = (1, 64, 64, 3)
    assert abstract(plain, shape)[1] == abstract(dilated, shape)[1]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cifar_resnet20", (2, 3, 32, 32)),
        ("cifar_resnet20", (2, 1, 28, 28)),
        ("resnet18", (2, 3, 224, 160)),
    ],
)
def test_images_with_channels_first_are_refused_with_the_remedy(name, shape):
    model = create_model(name)
    with pytest.raises(UserError, match=r"channels come last .* transpose by \(0, 2, 3, 1\)"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


def test_a_network_inside_another_module_takes_a_name():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return create_model("cifar_resnet20", num_classes=0, name="backbone")(x)

    shapes = jax.eval_shape(Outer().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert list(shapes["params"]) == ["backbone"]
    assert create_model("cifar_resnet20").clone(name="other").name == "other"


def test_init_outside_the_mapped_axis_works_in_training_too():
    model = tiny(axis_name="batch")
    x = jnp.zeros((2, 8, 8, 3))
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, True), x)
    assert shapes == abstract(tiny())[1]
