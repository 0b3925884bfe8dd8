"""What has to be set before JAX finds its devices: flags, caches, and the C library's allocator."""

import ctypes
import importlib.util
import os
import platform

import jax

# <malloc.h> of the GNU C library, and Linux's <sys/mman.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2**21


def prepare_runtime(precision: str, deterministic: bool = False) -> None:
    """Sets what JAX reads once: asking whether this process leads is already too late.

    Compiled programs are kept in the user's cache directory, never in a workdir: they are
    executable code, which a shared or downloaded workdir must not bring along.
    JAX_COMPILATION_CACHE_DIR names another directory, JAX_ENABLE_COMPILATION_CACHE=false keeps
    none.

    Args:
      precision: of the recipe; "float64" needs JAX's 64-bit types.
      deterministic: whether to ask XLA for repeatable kernels on GPUs.
    """
    flags, flag = os.environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true"
    if deterministic and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
    jax.config.update("jax_enable_x64", precision == "float64")
    # JAX makes the attributes of its config at run time.
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        cache = os.path.join(user_cache, "resnet_jax", "xla")
        jax.config.update("jax_compilation_cache_dir", cache)
    # The many small programs of a start take long together; JAX would keep the long ones alone.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if computes_on_cpu():
        keep_freed_memory()


def computes_on_cpu() -> bool:
    """Tells whether JAX can only compute on the CPU, without starting it."""
    plugins = [importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")]
    named = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    return named == "cpu" or not any(plugins)


def keep_freed_memory() -> bool:
    """Keeps freed memory in this process, for work on the CPU; returns whether it could.

    XLA:CPU allocates its buffers again at every step. The GNU C library returns blocks of that size
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
    library = ctypes.CDLL(None)
    settings = ((_M_TRIM_THRESHOLD, -1), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1))
    if sum(library.mallopt(*setting) for setting in settings) < len(settings):
        return False
    _ask_for_huge_pages(library)
    return True


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """Asks Linux for pages of 2 MiB under what is allocated from now on.

    A buffer of 50 MB has 12,000 small pages, more than a processor finds without looking in memory.
    The heap grows by half of the machine's memory, is marked, and is free again: memory that nobody
    writes to is not taken from the system. Where that is refused, the pages stay small.
    """
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    block = library.malloc(size)
    if block:
        start = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        library.madvise(start, block + size - start, _MADV_HUGEPAGE)
        library.free(block)
