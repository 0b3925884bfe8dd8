"""What compilers make of ResNet-50's training step for TPUs and GPUs that are not here.

    pip install -e ".[aot]" "jax[cuda12]"       # the compilers; 6 GB, most of it for the GPU
    python -m benchmarks.compiled [--output=results] [--programs NAME ...]

Each program is compiled, not run: batch 256 a chip, bfloat16, 224 pixels. A program takes 1 minute
(GPU) to 5 (TPU) of a CPU. Figures that stand in the record stay, unless they are asked for by name,
so a run that was cut short goes on.

For a TPU the bytes and the seconds are those of the compiler's own cost model. For a GPU the bytes
are what each kernel reads and writes, added up here; nothing is credited to caches, and without
autotuning, which would run kernels, cuDNN's and Triton's choices are not those of a real run.
"""

import argparse
import collections
import functools
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

# Before JAX is imported. libtpu asks no metadata server, shares the machine, and speaks less.
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
}
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import hlo, pages
from benchmarks.peers import stock_flax
from resnet_jax.distributed.mesh import make_mesh, replicated, split_by_batch
from resnet_jax.models import create_model
from resnet_jax.seeds import seed_words
from resnet_jax.training.loss import softmax_cross_entropy
from resnet_jax.training.optimizer import FIELDS, make_optimizer
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import train_step

BATCH, PIXELS, CLASSES, RATE = 256, 224, 1000, 0.1
# XLA's own description of the card (openxla/xla, xla/tools/hlo_opt/gpu_specs/h100_sxm.txtpb).
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Program(NamedTuple):
    """What is compiled.

    Attributes:
      devices: "8 v5e", for example; of `mesh_of`.
      net: "ours" or "stock Flax".
      fields: of our network, beside its name.
    """

    devices: str
    net: str = "ours"
    fields: tuple[tuple[str, Any], ...] = ()


GROUPED = (("norm_group_size", BATCH),)
PROGRAMS = {
    "v5e": Program("1 v5e"),
    "v5e-flax": Program("1 v5e", "stock Flax"),
    "v6e": Program("1 v6e"),
    "v6e-flax": Program("1 v6e", "stock Flax"),
    "h100": Program("1 H100"),
    "h100-flax": Program("1 H100", "stock Flax"),
    "8-h100": Program("8 H100"),
    "8-h100-groups": Program("8 H100", fields=GROUPED),
    "8-v5e": Program("8 v5e"),
    "8-v5e-groups": Program("8 v5e", fields=GROUPED),
    "256-v5e": Program("256 v5e"),
}
TOPOLOGIES = {1: "1x1", 8: "2x4", 256: "16x16"}


def mesh_of(devices: str) -> Mesh:
    """Returns the mesh of a number of chips of a kind, for example "8 v5e"."""
    number, kind = devices.split()
    if kind == "H100":
        wanted = {"topology": f"1x{number}x1", "target_config": H100}
        found = topologies.get_topology_desc(platform="cuda", topology_name="", **wanted)
    else:
        alone = {"chips_per_host_bounds": (1, 1, 1)} if number == "1" else {}
        name = f"{kind}:{TOPOLOGIES[int(number)]}"
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **alone)
    return make_mesh(list(found.devices))


def compile_step(program: Program, batch: int = BATCH) -> Any:
    """Compiles a program's training step for `batch` images a chip of 224 pixels, in bfloat16."""
    mesh = mesh_of(program.devices)
    state, step = (_ours if program.net == "ours" else _flax)(**dict(program.fields))

    def on_mesh(state, batch):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return step(state, batch)

    whole, rows = replicated(mesh), split_by_batch(mesh)
    n = batch * mesh.size
    batch = {
        "image": jax.ShapeDtypeStruct((n, PIXELS, PIXELS, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((n,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((n,), bool),
    }
    jitted = jax.jit(on_mesh, in_shardings=(whole, rows), out_shardings=whole, donate_argnums=0)
    return jitted.lower(jax.eval_shape(state), batch).compile()


def _ours(**fields):
    model = create_model("resnet50", num_classes=CLASSES, dtype="bfloat16", **fields)
    optimizer = make_optimizer({name: f.default for name, f in FIELDS.items()}, lambda _: RATE)

    def create_state():
        variables = _initial(model)
        start = {"opt_state": optimizer.init(variables["params"]), "seed": seed_words(0)}
        return TrainState(jnp.int32(0), **variables, **start, loss_scale=None)

    def augment(batch, seed):
        return batch["image"], jax.nn.one_hot(batch["label"], CLASSES)

    fixed = {"augment": augment, "loss": softmax_cross_entropy, "schedule": lambda _: RATE}
    return create_state, functools.partial(train_step, model=model, optimizer=optimizer, **fixed)


def _flax():
    model = stock_flax.make_model("resnet50", CLASSES, "bfloat16")

    def create_state():
        variables = _initial(model)
        return variables, stock_flax.OPTIMIZER.init(variables["params"])

    def step(state, batch):
        return stock_flax.train_step(model, state, batch["image"], batch["label"])

    return create_state, step


def _initial(model: nn.Module) -> dict[str, Any]:
    return model.init(jax.random.key(0), jnp.zeros((1, PIXELS, PIXELS, 3)), train=False)


def measure(program: Program) -> dict[str, Any]:
    """Compiles a program and returns its figures, in bytes and seconds."""
    began = time.perf_counter()
    compiled = compile_step(program)
    text, memory = compiled.as_text(), compiled.memory_analysis()
    figures = {
        "compile_seconds": time.perf_counter() - began,
        "peak": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "collectives": hlo.collectives(text),
    }
    if "H100" in program.devices:
        kinds = collections.defaultdict(lambda: [0, 0])
        for kind, count in hlo.kernels(text):
            kinds[kind][0] += 1
            kinds[kind][1] += count
        return figures | {"kernels": dict(kinds), "bytes": sum(b for _, b in kinds.values())}
    cost = compiled.cost_analysis()
    # The model counts -1 s for each of these.
    bitcasts = text.count('custom_call_target="ConcatBitcast"')
    found = list(hlo.convolutions(text))
    return figures | {
        "bytes": cost["bytes accessed"],
        "seconds": cost["optimal_seconds"] + bitcasts,
        "peak": memory.peak_memory_in_bytes,
        "forward": sum(each.is_forward for each in found),
        "with_moments": sum(each.is_forward and each.has_moments for each in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=[])
    parser.add_argument("--output", type=pages.folder, default=Path("results"))
    arguments = parser.parse_args()
    record = arguments.output / "compiled.json"
    for name in arguments.programs or PROGRAMS:
        # Read again each time: another process may be at work on other programs.
        known = json.loads(record.read_text())["programs"] if record.is_file() else {}
        if name in known and name not in arguments.programs:
            continue
        known[name] = measure(PROGRAMS[name])
        result = pages.record("compiled", TITLE, "compiled", "jax", "jaxlib", "libtpu", "flax")
        result |= {"command": "python -m benchmarks.compiled", "programs": known}
        result["tables"] = tables(known)
        pages.save(result, arguments.output)


TITLE = "What compilers make of ResNet-50's training step"


def tables(known: dict[str, dict[str, Any]]) -> dict[str, list[pages.Row]]:
    """Returns the page's tables for the figures of `measure` by the names of `PROGRAMS`."""
    figures = {name: known[name] for name in PROGRAMS if name in known}
    alone = {name: one for name, one in figures.items() if PROGRAMS[name].devices[:2] == "1 "}
    shared = {name: one for name, one in figures.items() if name not in alone}
    gpu = {name: alone[name] for name in ("h100", "h100-flax") if name in alone}
    found = {
        "One device, 256 images": [_cost(name, alone) for name in alone],
        "Kernels on an H100, by what they do": _kernel_rows(gpu),
        "Messages of a step, 256 images a device": [_messages(*item) for item in shared.items()],
        "Efficiency, calculated": _efficiencies(figures),
    }
    return {caption: rows for caption, rows in found.items() if rows}


def _cost(name: str, figures: dict[str, Any]) -> pages.Row:
    one, flax = figures[name], figures.get(f"{name.removesuffix('-flax')}-flax", {})
    is_ours = not name.endswith("-flax")
    row = {"device": PROGRAMS[name].devices[2:], "network": PROGRAMS[name].net}
    row |= {"GB a step": one["bytes"] / 1e9}
    if flax and is_ours:
        row |= {"share of Flax's": f"{one['bytes'] / flax['bytes']:.3f}"}
    if "seconds" in one:
        row |= {"modelled ms": one["seconds"] * 1e3}
        if flax and is_ours:
            row |= {"share of Flax's ms": f"{one['seconds'] / flax['seconds']:.3f}"}
        row |= {"moments inside convolutions": f"{one['with_moments']} of {one['forward']}"}
    else:
        row |= {"kernels": sum(count for count, _ in one["kernels"].values())}
    return row | {"peak memory, GB": f"{one['peak'] / 1e9:.2f}"}


def _kernel_rows(gpu: dict[str, Any]) -> list[pages.Row]:
    kinds = dict.fromkeys(kind for one in gpu.values() for kind in one["kernels"])
    rows = []
    for kind in sorted(kinds, key=lambda kind: -gpu["h100"]["kernels"].get(kind, [0, 0])[1]):
        row = {"kind": kind}
        for name, one in gpu.items():
            count, total = one["kernels"].get(kind, [0, 0])
            net = PROGRAMS[name].net
            row |= {f"{net}: kernels": count, f"{net}: GB": total / 1e9}
        rows.append(row)
    return rows


def _messages(name: str, one: dict[str, Any]) -> pages.Row:
    program, sums = PROGRAMS[name], one["collectives"]
    total = sum(size for _, _, size in sums)
    wide = sum(size for _, dtype, size in sums if dtype == "f32")
    return {
        "devices": program.devices,
        "norm_group_size": str(dict(program.fields).get("norm_group_size")),
        "all-reduces": sum(kind == "all-reduce" for kind, _, _ in sums),
        "other messages": sum(kind != "all-reduce" for kind, _, _ in sums),
        "MB": total / 1e6,
        "in float32": f"{wide / total:.1%}",
    }


class Network(NamedTuple):
    """Devices and what joins them: GB/s that a ring of all-reduces reaches, us of a small one."""

    program: str
    devices: int
    joined_by: str
    bandwidth: float
    latency: float


# About 80 % of the makers' nominal figures for one direction, and usual latencies.
NETWORKS = (
    Network("8-h100", 8, "NVLink", 360, 20),
    Network("8-h100-groups", 8, "NVLink", 360, 20),
    Network("8-h100", 64, "400 Gb/s InfiniBand a GPU", 40, 40),
    Network("8-h100-groups", 64, "400 Gb/s InfiniBand a GPU", 40, 40),
    Network("8-v5e", 8, "a torus", 80, 20),
    Network("8-v5e-groups", 8, "a torus", 80, 20),
    Network("256-v5e", 256, "a torus", 80, 20),
)
H100_SECONDS = 0.064  # of a step of 256 images at 4,000 images/s: an assumption


def _efficiencies(figures: dict[str, Any]) -> list[pages.Row]:
    """Rows of t / (t + c) and t / max(t, c), as `docs/scaling.md` defines them."""
    rows = []
    for network in NETWORKS:
        if network.program not in figures or "v5e" not in figures:
            continue
        sizes = [size for _, _, size in figures[network.program]["collectives"]]
        count = network.devices
        is_gpu = "h100" in network.program
        step = H100_SECONDS if is_gpu else figures["v5e"]["seconds"]
        ring = 2 * (count - 1) / count * sum(sizes) / (network.bandwidth * 1e9)
        messages = ring + len(sizes) * network.latency * 1e-6
        rows.append(
            {
                "devices": f"{count} {'H100' if is_gpu else 'v5e'}, {network.joined_by}",
                "norm_group_size": "256" if network.program.endswith("groups") else "None",
                "t, ms": f"{step * 1e3:.0f} ({'assumed' if is_gpu else 'modelled'})",
                "c, ms": f"{messages * 1e3:.1f}",
                "nothing overlaps": f"{step / (step + messages):.1%}",
                "all overlaps": f"{step / max(step, messages):.1%}",
            }
        )
    return rows


if __name__ == "__main__":
    main()
