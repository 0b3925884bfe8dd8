"""What `remat` saves and costs: one training step of ResNet-50, the network as it is importable.

    python docs/measure_remat.py cpu [--batch=16]       # compiled and run, float32
    python docs/measure_remat.py v5e [--batch=256]      # compiled only, bfloat16; jax[tpu], no TPU

Prints a line for each value of `remat`: memory in MB (for a TPU the peak, for a CPU what the step
takes beside its arguments), and the time of a step in ms (for a TPU by the compiler's own model).
"""

import argparse
import os
import time

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from resnet_jax import create_model


def make_step(model, optimizer):
    def step(state, images, labels):
        variables, opt_state = state

        def loss(params):
            logits, updates = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

        (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        changes, opt_state = optimizer.update(gradients, opt_state)
        params = optax.apply_updates(variables["params"], changes)
        return ({**updates, "params": params}, opt_state), value

    return step


def compile_step(device, batch, remat):
    """Returns the compiled step on a device, and the shapes of its arguments."""
    dtype = "float32" if device.platform == "cpu" else "bfloat16"
    model = create_model("resnet50", remat=remat, dtype=dtype)
    optimizer = optax.sgd(0.1, momentum=0.9)
    images = jax.ShapeDtypeStruct((batch, 224, 224, 3), jnp.float32)

    def start(images):
        variables = model.init(jax.random.key(0), images)
        return variables, optimizer.init(variables["params"])

    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    shapes = (jax.eval_shape(start, images), images, labels)
    placed = SingleDeviceSharding(device)
    jitted = jax.jit(make_step(model, optimizer), in_shardings=placed, donate_argnums=0)
    return jitted.lower(*shapes).compile(), shapes


def run(compiled, shapes):
    """Returns the seconds of the fastest of five steps."""
    state, *batch = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        state, value = compiled(state, *batch)
        value.block_until_ready()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=("cpu", "v5e"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--remat", nargs="+", default=("none", "block", "stage"))
    given = parser.parse_args()
    device, batch = jax.devices()[0], given.batch or 16
    if given.device == "v5e":
        chip = {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1)}
        device = topologies.get_topology_desc(platform="tpu", **chip).devices[0]
        batch = given.batch or 256
    for remat in given.remat:
        compiled, shapes = compile_step(device, batch, remat)
        memory = compiled.memory_analysis()
        if given.device == "cpu":
            size, seconds = memory.temp_size_in_bytes, run(compiled, shapes)
        else:
            # The model counts -1 s for each of these calls.
            wrong = compiled.as_text().count('custom_call_target="ConcatBitcast"')
            seconds = compiled.cost_analysis()["optimal_seconds"] + wrong
            size = memory.peak_memory_in_bytes
        print(f"{given.device} {batch} {remat}: {size / 1e6:,.0f} MB, {1e3 * seconds:,.1f} ms")


if __name__ == "__main__":
    main()
