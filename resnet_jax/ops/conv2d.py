"""The 2-D convolution that every network here is made of.

A convolution is linear in its images and linear in its kernel, and so are its two gradients: each
of the three maps is a transpose of the other two. They are primitives here, differentiated in terms
of one another, so a platform may state each of them in the way that suits it, and derivatives of
any order and direction stay exact. Every platform runs XLA's own convolution, except the CPU, where
`cpu_convolution` chooses by shape.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from resnet_jax.ops import cpu_conv2d
from resnet_jax.ops.formulations import Geometry, direct, image_transpose, kernel_transpose


def conv2d(
    images: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    groups: int = 1,
) -> jax.Array:
    """Convolves images with a kernel, channels last, without a bias.

    Differentiable to any order in forward and reverse mode, and good under `vmap`, `shard_map` and
    `jax.export`.

    Args:
      images: [N, H, W, C].
      kernel: [kh, kw, C / groups, F], in the dtype of `images`.
      strides: step between outputs, in pixels (vertical, horizontal).
      padding: zeros added (before, after) in each of the two directions.
      groups: number of independent channel groups; divides C and F.

    Returns:
      [N, H', W', F] in the dtype of `images`.
    """
    top_bottom, left_right = padding
    geometry = Geometry(
        image_size=tuple(images.shape[1:3]),
        kernel_size=tuple(kernel.shape[:2]),
        strides=tuple(strides),
        padding=(tuple(top_bottom), tuple(left_right)),
        groups=groups,
    )
    return _output_p.bind(*_equally_varying(images, kernel), geometry=geometry)


def _equally_varying(images, kernel):
    """Marks both operands as varying over every mesh axis that either varies over (`shard_map`
    tells them apart).
    """
    varying = [jax.typeof(operand).manual_axis_type.varying for operand in (images, kernel)]
    missing = [tuple((varying[0] | varying[1]) - own) for own in varying]
    return [
        lax.pcast(x, axes, to="varying") if axes else x
        for x, axes in zip((images, kernel), missing, strict=True)
    ]


def _on_cpu(plain, fast):
    """The choice between the two on the CPU: `fast` knows one group, floating-point and maps that
    are not empty.

    Half precision is computed in single and rounded once; XLA:CPU is no faster in it.
    """

    def run(left, right, geometry):
        covered = geometry.groups == 1 and jnp.issubdtype(left.dtype, jnp.floating)
        # `jax.export` may leave height and width open.
        known = all(isinstance(size, int) for size in geometry.image_size)
        if not covered or not known or min(geometry.output_size) < 1:
            return plain(left, right, geometry)
        wide = jnp.promote_types(left.dtype, jnp.float32)
        return fast(left.astype(wide), right.astype(wide), geometry).astype(left.dtype)

    return run


def _primitive(name, plain, cpu, batch_operands):
    """A primitive of two arrays, bilinear, and a geometry.

    Args:
      name: its name in a jaxpr.
      plain: what it computes, in XLA's formulation: (array, array, geometry) -> array.
      cpu: the same for the CPU, where it can.
      batch_operands: the operands, 0 or 1, whose first axis is the result's first axis.
    """
    primitive = Primitive(name)

    @partial(jax.jit, static_argnames="geometry")
    def run(left, right, geometry):
        return primitive.bind(left, right, geometry=geometry)

    def result_type(left, right, *, geometry):
        shapes = [jax.ShapeDtypeStruct(operand.shape, operand.dtype) for operand in (left, right)]
        result = jax.eval_shape(lambda *operands: plain(*operands, geometry), *shapes)
        return left.update(shape=result.shape, dtype=result.dtype, weak_type=False)

    def batch(operands, axes, *, geometry):
        operands = [
            x if at is None else jnp.moveaxis(x, at, 0)
            for x, at in zip(operands, axes, strict=True)
        ]
        mapped = [i for i, at in enumerate(axes) if at is not None]
        if len(mapped) == 1 and mapped[0] in batch_operands:
            stacked = operands[mapped[0]]
            operands[mapped[0]] = lax.collapse(stacked, 0, 2)
            result = primitive.bind(*operands, geometry=geometry)
            return result.reshape(*stacked.shape[:2], *result.shape[1:]), 0
        in_axes = [None if at is None else 0 for at in axes]
        return jax.vmap(partial(plain, geometry=geometry), in_axes)(*operands), 0

    primitive.def_impl(lambda left, right, *, geometry: run(left, right, geometry))
    primitive.def_abstract_eval(result_type)
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))
    mlir.register_lowering(
        primitive, mlir.lower_fun(_on_cpu(plain, cpu), multiple_results=False), platform="cpu"
    )
    return primitive


_output_p = _primitive("conv2d", direct, cpu_conv2d.output, (0,))
_image_gradient_p = _primitive(
    "conv2d_image_gradient", partial(image_transpose, direct), cpu_conv2d.image_gradient, (0,)
)
_kernel_gradient_p = _primitive(
    "conv2d_kernel_gradient", partial(kernel_transpose, direct), cpu_conv2d.kernel_gradient, ()
)

# <conv(x, w), g> = <x, image_gradient(g, w)> = <w, kernel_gradient(x, g)>: each map's transposes
# are the other two.
ad.defbilinear(
    _output_p,
    lambda g, x, w, geometry: _image_gradient_p.bind(g, w, geometry=geometry),
    lambda g, x, w, geometry: _kernel_gradient_p.bind(x, g, geometry=geometry),
)
ad.defbilinear(
    _image_gradient_p,
    lambda x, g, w, geometry: _output_p.bind(x, w, geometry=geometry),
    lambda x, g, w, geometry: _kernel_gradient_p.bind(x, g, geometry=geometry),
)
ad.defbilinear(
    _kernel_gradient_p,
    lambda w, x, g, geometry: _image_gradient_p.bind(g, w, geometry=geometry),
    lambda w, x, g, geometry: _output_p.bind(x, w, geometry=geometry),
)
