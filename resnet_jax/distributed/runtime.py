"""The C library's allocator, told to keep the memory that a training step will ask for again."""

import ctypes
import importlib.util
import os
import platform

import jax

# <malloc.h> of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def computes_on_cpu() -> bool:
    """Tells whether JAX can only compute on the CPU, without starting it."""
    plugins = [importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")]
    return jax.config.jax_platforms == "cpu" or not any(plugins)


def keep_freed_memory() -> bool:
    """Keeps freed memory in this process, for networks that compute on the CPU; returns whether it
    could.

    XLA:CPU allocates its buffers anew at every step. The GNU C library returns blocks of that size
    to the system, which hands them back page by page, filled with zeros: a fifth of the processor
    time of a small network's step. The price is that the process keeps its peak memory until it
    ends.

    Call it before JAX has devices: the threads that JAX then starts would take an arena each, and
    return memory from it all the same. Nothing happens with another C library, or where the
    environment tunes this one (MALLOC_..., GLIBC_TUNABLES).
    """
    tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if tuned or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_TRIM_THRESHOLD, -1), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1))
    return sum(mallopt(*setting) for setting in settings) == len(settings)
