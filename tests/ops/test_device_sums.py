"""Kernels' gradients are added over devices in float32, whatever the precision of each part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from resnet_jax.models.layers import Conv
from resnet_jax.ops.conv2d import conv2d

DEVICES = 8

pytestmark = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices, fake ones will do"
)


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))


def draw(images=DEVICES, dtype=jnp.bfloat16):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(images, 4, 4, 3)), dtype)
    return x, jnp.asarray(rng.normal(size=(3, 3, 3, 5)), jnp.float32)


def convolve(x, kernel):
    return conv2d(x, kernel, padding=((1, 1), (1, 1)))


def gradient(x, kernel):
    return jax.grad(lambda kernel: jnp.sum(convolve(x, kernel).astype(jnp.float32) ** 2))(kernel)


def on_mesh(function, mesh, *arguments):
    def run(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    x, *others = arguments
    rows = P("data") if len(x) % DEVICES == 0 else P()
    return jax.jit(run)(jax.device_put(x, NamedSharding(mesh, rows)), *others)


def test_the_sum_over_devices_is_float32s_of_bfloat16_parts(mesh):
    x, kernel = draw()
    parts = [jax.jit(gradient)(x[i : i + 1], kernel) for i in range(DEVICES)]
    for part in parts:
        np.testing.assert_array_equal(part, part.astype(jnp.bfloat16).astype(jnp.float32))
    summed = on_mesh(gradient, mesh, x, kernel)
    assert summed.dtype == jnp.float32
    np.testing.assert_allclose(summed, sum(parts), rtol=1e-5, atol=1e-4)
    rounded = summed.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.mean(summed == rounded) < 0.5  # the sum itself was not rounded


def test_the_field_gives_the_compilers_own_sums(mesh):
    x, _ = draw()

    def program(wide):
        layer = Conv(5, 3, dtype=jnp.bfloat16, float32_sums=wide)
        variables = layer.init(jax.random.key(0), x)

        def loss(variables, x):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return jnp.sum(layer.apply(variables, x).astype(jnp.float32) ** 2)

        return str(jax.make_jaxpr(jax.grad(loss))(variables, x))

    assert "psum" in program(True)
    assert "psum" not in program(False)


def test_forward_mode_and_second_derivatives_are_those_of_one_device(mesh):
    x, kernel = draw()

    def curvature(x, kernel):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(convolve(x, kernel).astype(jnp.float32)))

        def slope(x, kernel):
            return jax.jvp(loss, (x, kernel), (x, kernel))[1]

        return jax.grad(slope, (0, 1))(x, kernel)

    for value, expected in zip(
        on_mesh(curvature, mesh, x, kernel), jax.jit(curvature)(x, kernel), strict=True
    ):
        value, expected = (np.asarray(leaf, np.float32) for leaf in (value, expected))
        np.testing.assert_allclose(value, expected, atol=0.02 * np.max(np.abs(expected)))


@pytest.mark.parametrize("images", [1, DEVICES + 1])
def test_a_batch_that_does_not_divide_goes_through_whole(mesh, images):
    x, kernel = draw(images)
    value, expected = on_mesh(gradient, mesh, x, kernel), jax.jit(gradient)(x, kernel)
    np.testing.assert_allclose(value, expected, rtol=0.02, atol=0.02 * np.max(np.abs(expected)))


def test_the_callers_own_shard_map_adds_up_once(mesh):
    x, kernel = draw()
    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(P("data"), P()), out_specs=P())
    expected = gradient(x, kernel)
    np.testing.assert_allclose(
        jax.jit(mapped)(x, kernel), expected, rtol=0.02, atol=0.02 * np.max(np.abs(expected))
    )


def test_vmap_over_networks(mesh):
    x, kernel = draw()
    kernels = jnp.stack([kernel, -2 * kernel])

    def both(x, kernels):
        return jax.vmap(gradient, (None, 0))(x, kernels)

    value, expected = on_mesh(both, mesh, x, kernels), jax.jit(both)(x, kernels)
    np.testing.assert_allclose(value, expected, rtol=0.02, atol=0.02 * np.max(np.abs(expected)))
