"""The mesh of devices, and how arrays lie on it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def is_lead() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return jax.process_index() == 0


def describe_devices() -> str:
    """Returns what was found, for example "8 × NVIDIA H100 in 1 process"."""
    devices = jax.devices()
    kind = "CPU" if devices[0].platform == "cpu" else devices[0].device_kind
    processes = jax.process_count()
    return f"{len(devices)} × {kind} in {processes} process{'es' if processes > 1 else ''}"


# jax.Device comes from a compiled module, so that a type checker takes it for a variable.
def make_mesh(
    devices: list[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> Mesh:
    """Returns the one-axis mesh "data" over all devices of all processes, process by process.

    That order is the loader's, which gives each process consecutive rows; `jax.make_mesh` would
    order TPUs by their topology, and refuses GPUs on several machines.
    """
    ordered = sorted(
        jax.devices() if devices is None else devices,
        key=lambda device: (device.process_index, device.id),
    )
    return Mesh(np.array(ordered), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_by_batch(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Places this process's share of a batch on its devices.

    Args:
      mesh: from `make_mesh`.
      batch: arrays [N / processes, ...], this process's consecutive rows.

    Returns:
      Global arrays [N, ...], split over the mesh along the first axis.
    """
    sharding = split_by_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Places NumPy arrays that all processes have, the same on every device; others stay."""
    sharding = replicated(mesh)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            return leaf
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree)


def jit_step(mesh: Mesh, function: Callable, **options: Any) -> Callable:
    """Compiles a step: its first argument is the same on every device, the batch split.

    Args:
      mesh: of the devices.
      function: (state or variables, batch) -> results, which become the same on every device.
      **options: further ones of `jax.jit`.
    """

    def on_mesh(*arguments: Any) -> Any:
        # So that operations can ask which mesh they are on.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    # The name of the compiled program, which traces show.
    named = functools.wraps(getattr(function, "func", function))(on_mesh)
    whole, rows = replicated(mesh), split_by_batch(mesh)
    return jax.jit(named, in_shardings=(whole, rows), out_shardings=whole, **options)
