"""The shapes that annotations state are those of the arrays that go in and come out."""

import importlib
import inspect
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from running import ROOT

from resnet_jax.data.augment import mixing, pipeline, transforms
from resnet_jax.models import create_model, layers, pools
from resnet_jax.ops.batch_norm import batch_normalize
from resnet_jax.ops.conv2d import conv2d
from resnet_jax.ops.max_pool import max_pool
from resnet_jax.ops.relu import relu
from resnet_jax.training import distillation, loss, metrics

ROOMS = ("ops", "training", "data/augment", "models")
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 4)
IMAGES = jnp.ones((4, 8, 6, 3))
PIXELS = jnp.ones((4, 8, 6, 3), jnp.uint8)
CHANNEL = jnp.ones(3)
LOGITS = jnp.ones((4, 5))
LOSSES, MASK = jnp.ones(4), jnp.ones(4, bool)
TAUGHT = distillation.Distillation(lambda *_: LOGITS, 2.0, 0.5)
CALLS = [
    (conv2d, (IMAGES, jnp.ones((3, 3, 3, 2))), {"strides": (2, 2)}),
    (max_pool, (IMAGES,), {}),
    (batch_normalize, (IMAGES, CHANNEL, CHANNEL, CHANNEL, 2, 1e-5, None), {}),
    (relu, (IMAGES,), {}),
    (loss.softmax_cross_entropy, (LOGITS, LOGITS), {}),
    (loss.binary_cross_entropy, (LOGITS, LOGITS), {}),
    (loss.smooth, (LOGITS, 0.1), {}),
    (metrics.example_sums, (LOGITS, LOGITS, LOSSES, MASK), {}),
    (distillation.distance, (LOGITS, LOGITS, 2.0), {}),
    (distillation.Distillation.mix, (TAUGHT, LOSSES, LOGITS, LOGITS), {}),
    (transforms.normalise, (PIXELS, np.zeros(3), np.ones(3), jnp.float32), {}),
    (transforms.random_flip, (KEY, PIXELS[0]), {}),
    (transforms.alternating_flip, (KEY, PIXELS[0], jnp.int32(1)), {}),
    (transforms.pad_and_crop, (KEY, PIXELS[0], 2), {}),
    (transforms.random_erasing, (KEY, IMAGES[0], 1.0, (0.1, 0.3), (0.5, 2.0), "noise"), {}),
    (mixing.mix, (KEYS, IMAGES, LOGITS, MASK, 0.2, 1.0, 1.0, 0.5), {}),
    (mixing.neighbours, (IMAGES,), {}),
    (pipeline.example_keys, (jnp.ones(2, jnp.uint32), jnp.arange(4), jnp.arange(4)), {}),
    (pools.global_mean, (IMAGES,), {}),
    (pools.average_pool, (IMAGES, 2), {}),
    (pools.average_ahead, (IMAGES,), {}),
    (pools.blur, (IMAGES, 2), {}),
    (pools.max_pool_zeros, (IMAGES,), {}),
    (layers.drop_branch, (IMAGES, 0.5, KEY), {}),
    (layers.widen_identity, (IMAGES, 6, 2), {}),
]


def call(function, *arguments, run=None, **options):
    """Calls, with arrays held against the annotations: a letter is one size throughout."""
    module = importlib.import_module(function.__module__)
    stated = typing.get_type_hints(function, {**vars(jaxtyping), **vars(module)})
    given = inspect.signature(function).bind(*arguments, **options).arguments
    with jaxtyping.jaxtyped("context"):
        for name, value in given.items():
            if states_a_shape(stated.get(name)):
                assert isinstance(value, stated[name]), (function, name, value.shape)
        result = (run or function)(*arguments, **options)
        if "return" in stated:
            hold(result, stated["return"])
    return result


def hold(value, kind):
    if states_a_shape(kind):
        assert isinstance(value, kind), (kind, value)
    elif typing.get_origin(kind) is tuple:
        for part, each in zip(value, typing.get_args(kind), strict=True):
            hold(part, each)
    elif typing.get_origin(kind) is dict:
        for part in value.values():
            hold(part, typing.get_args(kind)[1])


def states_a_shape(kind):
    return isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractArray)


def name_of(function):
    return f"{function.__module__}.{function.__qualname__}"


def annotated():
    """Returns the names of all functions of `ROOMS` whose annotations state shapes."""
    found = set()
    for room in ROOMS:
        for path in (ROOT / "resnet_jax" / room).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if "from jaxtyping import" not in path.read_text():
                continue
            module = importlib.import_module(name)
            owners = [module, *(c for c in vars(module).values() if inspect.isclass(c))]
            for each in [value for owner in owners for value in vars(owner).values()]:
                texts = str(getattr(each, "__annotations__", ""))
                if getattr(each, "__module__", "") == name and "[jax.Array, '" in texts:
                    found.add(name_of(each))
    return found


def test_arrays_have_the_shapes_that_annotations_state():
    seen = {name_of(function) for function, _, _ in CALLS}
    # Traced only: nothing is compiled.
    jax.eval_shape(lambda: [call(f, *arguments, **options) for f, arguments, options in CALLS])

    def intercept(run, arguments, options, context):
        function = getattr(type(context.module), context.method_name)
        if "[jax.Array, '" not in str(getattr(function, "__annotations__", "")):
            return run(*arguments, **options)
        seen.add(name_of(function))
        return call(
            function, context.module, *arguments, **options, run=lambda _, *a, **o: run(*a, **o)
        )

    fields = {"stage_sizes": (1, 1), "width": 8, "num_classes": 5}
    networks = (
        create_model("seresnet50", **fields),
        create_model("ecaresnet50d", **fields),
        create_model("resnet18", norm="group", norm_channel_groups=2, **fields),
    )
    with nn.intercept_methods(intercept):
        for model in networks:
            variables = jax.eval_shape(model.init, KEY, IMAGES)
            for method in ("__call__", "features"):
                apply = lambda v, x, m=model, n=method: m.apply(v, x, method=n)  # noqa: E731
                jax.eval_shape(apply, variables, IMAGES)
    assert annotated() - seen == {"resnet_jax.training.step.forward"}
