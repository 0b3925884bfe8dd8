"""conv2d is XLA's convolution, whatever its shape, its derivative and the transformation around
it.
"""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from resnet_jax.models import create_model, layers
from resnet_jax.ops import cpu_conv2d
from resnet_jax.ops.conv2d import conv2d
from resnet_jax.ops.cpu_conv2d import Geometry, winograd

# (side, channels, features, kernel, stride, padding, groups): one row for every formulation and for
# its edges.
SHAPES = {
    "stem 7x7": (28, 1, 8, 7, 2, 3, 1),
    "stem 7x7 colour": (32, 3, 16, 7, 2, 3, 1),
    "stem 3x3": (12, 3, 16, 3, 1, 1, 1),
    "3x3": (14, 16, 24, 3, 1, 1, 1),
    "3x3 wide": (7, 64, 64, 3, 1, 1, 1),
    "3x3 by Winograd": (14, 256, 288, 3, 1, 1, 1),
    "3x3 by Winograd odd": (13, 288, 256, 3, 1, 1, 1),
    "3x3 stride 2": (14, 16, 24, 3, 2, 1, 1),
    "3x3 stride 2 odd": (7, 32, 48, 3, 2, 1, 1),
    "3x3 on 4": (4, 16, 16, 3, 1, 1, 1),
    "3x3 stride 2 on 4": (4, 16, 24, 3, 2, 1, 1),
    "3x3 on 3": (3, 16, 16, 3, 1, 1, 1),
    "3x3 on 2": (2, 16, 24, 3, 1, 1, 1),
    "3x3 stride 2 on 2": (2, 16, 24, 3, 2, 1, 1),
    "3x3 on 1": (1, 16, 24, 3, 1, 1, 1),
    "7x7 on 2": (2, 8, 8, 7, 2, 3, 1),
    "7x7 on 4": (4, 3, 8, 7, 2, 3, 1),
    "1x1": (6, 16, 24, 1, 1, 0, 1),
    "1x1 stride 2": (7, 16, 24, 1, 2, 0, 1),
    "1x1 padded": (4, 16, 8, 1, 1, 1, 1),
    "2x2 stride 2": (8, 16, 24, 2, 2, 0, 1),
    "5x5": (9, 8, 8, 5, 1, 2, 1),
    "grouped": (8, 32, 64, 3, 1, 1, 4),
    "grouped stride 2": (8, 32, 64, 3, 2, 1, 32),
    "depth-wise on 2": (2, 16, 16, 3, 1, 1, 16),
}


def stock(images, kernel, strides, padding, groups, dilation=1):
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def draw(name, batch=3, dtype=np.float64):
    """Images, kernel, cotangent and conv2d's keywords for a row of SHAPES."""
    side, channels, features, kernel, stride, pad, groups = SHAPES[name]
    keywords = {"strides": (stride, stride), "padding": ((pad, pad), (pad, pad)), "groups": groups}
    rng = np.random.default_rng(len(name))
    images = rng.normal(size=(batch, side, side, channels)).astype(dtype)
    weights = rng.normal(size=(kernel, kernel, channels // groups, features)).astype(dtype)
    out = (side + 2 * pad - kernel) // stride + 1
    return images, weights, rng.normal(size=(batch, out, out, features)).astype(dtype), keywords


def output_and_gradients(function, images, weights, cotangent, keywords):
    output, pullback = jax.vjp(lambda x, w: function(x, w, **keywords), images, weights)
    return output, *pullback(cotangent)


def relative_error(value, truth):
    return np.linalg.norm(np.asarray(value, np.float64) - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("name", SHAPES)
def test_output_and_gradients_are_xlas(name):
    images, weights, cotangent, keywords = draw(name)
    with jax.enable_x64(True):
        truth = jax.jit(lambda *a: output_and_gradients(stock, *a, keywords))(
            images, weights, cotangent
        )
        double = jax.jit(lambda *a: output_and_gradients(conv2d, *a, keywords))(
            images, weights, cotangent
        )
    arrays = [jnp.asarray(a, jnp.float32) for a in (images, weights, cotangent)]
    single = jax.jit(lambda *a: output_and_gradients(conv2d, *a, keywords))(*arrays)
    for value, precise, reference in zip(single, double, truth, strict=True):
        reference = np.asarray(reference)
        assert (precise.dtype, value.dtype) == (np.float64, np.float32)
        assert precise.shape == value.shape == reference.shape
        assert relative_error(precise, reference) < 1e-14
        assert relative_error(value, reference) < 1e-6
        assert np.max(np.abs(value - reference)) < 1e-5 * np.max(np.abs(reference))


def cpu_program(function, *arrays):
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize("name", ["3x3 by Winograd", "3x3 by Winograd odd"])
def test_a_3x3_convolution_with_enough_work_is_matmuls(name):
    images, weights, cotangent, keywords = draw(name, dtype=np.float32)
    program = cpu_program(
        lambda *a: output_and_gradients(conv2d, *a, keywords), images, weights, cotangent
    )
    assert program.count("stablehlo.dot_general") == 3 * 4
    assert "stablehlo.convolution" not in program


@pytest.mark.parametrize("size", [(5, 8), (4, 7)])
def test_winograd_takes_uneven_padding(size):
    rng = np.random.default_rng(0)
    images, weights = rng.normal(size=(2, *size, 8)), rng.normal(size=(3, 3, 8, 16))
    padding = ((0, 2), (3, 1))
    keywords = {"strides": (1, 1), "padding": padding, "groups": 1}

    def by_winograd(x, w, **_):
        return winograd(Geometry(size, (3, 3), (1, 1), padding), x, w)

    with jax.enable_x64(True):
        cotangent = rng.normal(size=stock(images, weights, **keywords).shape)
        values, references = (
            output_and_gradients(function, images, weights, cotangent, keywords)
            for function in (by_winograd, stock)
        )
        for value, reference in zip(values, references, strict=True):
            np.testing.assert_allclose(value, reference, atol=1e-12)


DIFFERENT = [
    "3x3",
    "3x3 wide",
    "3x3 by Winograd odd",
    "3x3 on 2",
    "3x3 stride 2 on 4",
    "3x3 stride 2 odd",
    "1x1 stride 2",
    "grouped",
]


@pytest.mark.parametrize("strides", [(1, 2), (3, 1)])
@pytest.mark.parametrize("size", [(5, 9), (2, 7), (1, 4)])
def test_unequal_directions_and_uneven_padding(size, strides):
    rng = np.random.default_rng(0)
    images, weights = rng.normal(size=(2, *size, 8)), rng.normal(size=(3, 2, 8, 16))
    keywords = {"strides": strides, "padding": ((1, 2), (2, 0)), "groups": 1}
    with jax.enable_x64(True):
        shape = stock(images, weights, **keywords).shape
        cotangent = rng.normal(size=shape)
        values = output_and_gradients(conv2d, images, weights, cotangent, keywords)
        references = output_and_gradients(stock, images, weights, cotangent, keywords)
        for value, reference in zip(values, references, strict=True):
            np.testing.assert_allclose(value, reference, atol=1e-12)


@pytest.mark.parametrize("name", DIFFERENT)
def test_forward_mode_and_second_derivatives_are_xlas(name):
    images, weights, _, keywords = draw(name)

    def curvature(function):
        def objective(x, w):
            return jnp.sum(jnp.sin(function(x, w, **keywords)))

        return jax.jit(jax.grad(lambda x, w: jax.jvp(objective, (x, w), (x, w))[1], (0, 1)))(
            images, weights
        )

    with jax.enable_x64(True):
        for value, reference in zip(curvature(conv2d), curvature(stock), strict=True):
            assert relative_error(value, np.asarray(reference)) < 1e-12


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("name", ["3x3 on 2", "grouped"])
def test_vmap_is_a_loop(name, axes):
    rng = np.random.default_rng(0)
    images, weights, cotangent, keywords = draw(name)
    operands = [
        rng.normal(size=(2, *x.shape)) if at == 0 else x
        for x, at in zip((images, weights), axes, strict=True)
    ]

    def each(x, w):
        return output_and_gradients(conv2d, x, w, cotangent, keywords)

    with jax.enable_x64(True):
        mapped = jax.vmap(each, axes)(*operands)
        for i in range(2):
            single = each(*(x[i] if at == 0 else x for x, at in zip(operands, axes, strict=True)))
            for value, reference in zip(mapped, single, strict=True):
                np.testing.assert_allclose(value[i], reference, atol=1e-11)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["3x3 wide", "3x3 on 2", "3x3 stride 2 odd"])
def test_half_precision_rounds_once(name, dtype):
    images, weights, cotangent, keywords = draw(name)
    arrays = [jnp.asarray(a, dtype) for a in (images, weights, cotangent)]
    values = jax.jit(lambda *a: output_and_gradients(conv2d, *a, keywords))(*arrays)
    wide = [a.astype(jnp.float32) for a in arrays]
    references = jax.jit(lambda *a: output_and_gradients(stock, *a, keywords))(*wide)
    for value, reference in zip(values, references, strict=True):
        assert value.dtype == dtype
        assert relative_error(value, np.asarray(reference)) < jnp.finfo(dtype).eps


def test_export_for_every_platform_runs_here():
    images, weights, _, keywords = draw("3x3 on 2", dtype=np.float32)
    exported = jax.export.export(
        jax.jit(lambda x, w: conv2d(x, w, **keywords)), platforms=("cpu", "cuda", "tpu")
    )
    exported = exported(images, weights)
    expected = stock(images, weights, **keywords)
    np.testing.assert_allclose(exported.call(images, weights), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["3x3 by Winograd", "3x3 on 2", "1x1 stride 2", "7x7 on 2"])
def test_an_export_may_leave_the_number_of_images_open(name):
    images, weights, _, keywords = draw(name, dtype=np.float32)
    (count,) = jax.export.symbolic_shape("count")
    export = jax.export.export(jax.jit(lambda x, w: conv2d(x, w, **keywords)), platforms=("cpu",))
    exported = export(jax.ShapeDtypeStruct((count, *images.shape[1:]), np.float32), weights)
    expected = stock(images, weights, **keywords)
    np.testing.assert_allclose(exported.call(images, weights), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_one_convolution(platform):
    images, weights, _, keywords = draw("1x1", dtype=np.float32)
    function = jax.jit(lambda x, w: conv2d(x, w, **keywords))
    text = function.trace(images, weights).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 1
    assert "dot_general" not in text


SHARDED = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from resnet_jax.ops import cpu_conv2d
from resnet_jax.ops.conv2d import conv2d

cpu_conv2d.WINOGRAD_WORK = 0
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
cases = (  # channels, side, kernel size, stride
    (8, 8, 3, 1), (8, 8, 3, 2), (8, 4, 3, 2), (8, 2, 3, 1), (8, 2, 3, 2), (8, 1, 3, 1), (8, 7, 1, 2), (32, 7, 3, 1)
)
for channels, side, size, stride in cases:
    def objective(images, kernel):
        pad = size // 2
        return jnp.sum(conv2d(images, kernel, strides=(stride,) * 2, padding=((pad, pad),) * 2) ** 2)

    images, kernel = jnp.ones((16, side, side, channels)), jnp.ones((size, size, channels, 2 * channels))
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    step = jax.jit(jax.grad(objective, (0, 1)), in_shardings=(rows, whole), out_shardings=(rows, whole))
    text = step.lower(images, kernel).compile().as_text()
    assert "all-reduce" in text
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert collective not in text, (side, size, stride, collective)
    manual = jax.shard_map(jax.grad(objective, 1), mesh=mesh, in_specs=(P("data"), P()), out_specs=P())
    assert jnp.allclose(jax.jit(manual)(images, kernel), jax.grad(objective, 1)(images, kernel), rtol=1e-5)
"""


def test_eight_devices_exchange_only_sums():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def network_gradients(dtype, images):
    fields = {"stage_sizes": (1, 1), "width": 32, "num_classes": 10}
    model = create_model("resnet18", dtype=dtype, param_dtype=dtype, **fields)
    variables = jax.jit(partial(create_model("resnet18", **fields).init, train=False))(
        jax.random.key(0), images
    )
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)

    def objective(params):
        logits, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(jax.nn.logsumexp(logits, 1) - logits[:, 0])

    gradients = jax.jit(jax.grad(objective))(variables["params"])
    return np.concatenate(
        [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(gradients)]
    )


def test_a_networks_rounding_error_is_at_most_twice_the_plain_ones(monkeypatch):
    monkeypatch.setattr(cpu_conv2d, "WINOGRAD_WORK", 0)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(8, 28, 28, 1)), jnp.float32)
    with jax.enable_x64(True):
        truth = network_gradients("float64", images)
    ours = relative_error(network_gradients("float32", images), truth)
    monkeypatch.setattr(layers, "conv2d", stock)
    plain = relative_error(network_gradients("float32", images), truth)
    assert 0 < ours < 2 * plain
