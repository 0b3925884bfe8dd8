"""What to change when a step does not fit into the memory of a device."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from resnet_jax.distributed.abort import is_out_of_memory
from resnet_jax.errors import UserError

MOST_TRIALS = 4


@contextlib.contextmanager
def explaining(explain: Callable[[], UserError]) -> Iterator[None]:
    """Turns running out of device memory inside into what `explain` returns."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise explain() from error


def needed_gib(compiled: Any) -> float:
    """Returns the GiB of device memory that a compiled step needs."""
    use = compiled.memory_analysis()
    return (
        use.argument_size_in_bytes
        + use.output_size_in_bytes
        - use.alias_size_in_bytes
        + use.temp_size_in_bytes
        + use.generated_code_size_in_bytes
    ) / 2**30


def device_gib() -> float | None:
    """Returns the GiB that JAX may use on this process's smallest device, None where unknown."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    limits = [found["bytes_limit"] for found in stats if found and "bytes_limit" in found]
    return min(limits) / 2**30 if limits else None


def fits(compiled: Any) -> bool:
    """Whether a compiled step fits into a device's memory, as far as that is known."""
    limit = device_gib()
    return limit is None or needed_gib(compiled) <= limit


def shapes_of(tree: Any) -> Any:
    """Returns what a program needs to know of its arguments, without holding them."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def out_of_memory(
    batch_size: int, device_share: int, accumulate_steps: int, compile_in: Callable[[int], Any]
) -> UserError:
    """Returns the error that says what would fit; it has been compiled, and found to.

    Args:
      batch_size: images a step.
      device_share: how many of them a device has.
      accumulate_steps: of the run that does not fit.
      compile_in: returns the training step compiled for another number of accumulated parts.
    """
    divisors = [k for k in range(accumulate_steps + 1, device_share + 1) if device_share % k == 0]
    # There may be dozens and a compilation takes a minute: a few from coarse to fine, the finest
    # among them.
    places = np.linspace(0, len(divisors) - 1, min(MOST_TRIALS, len(divisors))).round().astype(int)
    for parts in (divisors[place] for place in places):
        if _compiles_and_fits(lambda parts=parts: compile_in(parts)):
            return UserError(
                f"config.batch_size = {batch_size}: a step does not fit into a device's memory; "
                f"set config.accumulate_steps = {parts}, which fits, or a smaller batch"
            )
    return UserError(
        f"config.batch_size = {batch_size}: a step does not fit into a device's memory, nor does"
        " any config.accumulate_steps make it fit: take a smaller network or image,"
        " config.precision=bfloat16, or more devices"
    )


def _compiles_and_fits(compile_step: Callable[[], Any]) -> bool:
    try:
        compiled = compile_step()
    except jax.errors.JaxRuntimeError as error:
        if is_out_of_memory(error):
            return False
        raise
    except UserError:  # norm_group_size does not divide such a part
        return False
    return fits(compiled)


def evaluation_out_of_memory(where: str, batch_size: int) -> UserError:
    """Returns the error of an evaluation step that does not fit; `where` names flag or field."""
    return UserError(
        f"{where} = {batch_size}: an evaluation step does not fit into a device's memory; halve it"
    )
