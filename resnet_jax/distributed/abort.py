"""The end of a process whose peers are gone: soon, with a clear last line and status 1."""

import ctypes
import os
import signal
import sys
import time
import traceback

import jax

LOST = (
    "error: another process of this run has died or cannot be reached: start all of them again with"
    " the same command, which resumes from the last checkpoint"
)
NOT_FOUND = (
    "error: the processes of this run did not find each other in time: check"
    " --coordinator=host:port, --num_processes and --process_id, that all were started, and that"
    " the port can be reached"
)
_GRACE_SECONDS = 3
_installed = []  # ctypes frees a callback that nobody holds


def speak_on_abort(line: str) -> None:
    """Makes `line` the last one when JAX's runtime aborts a process that cannot reach another.

    The runtime logs a stack trace and calls abort() from a thread of its own, where no Python
    signal handler runs.
    """

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def last_word(_: int) -> None:
        os.write(2, f"{line}\n".encode())
        os._exit(1)

    _installed.append(last_word)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(last_word, ctypes.c_void_p))


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def explain(error: Exception) -> None:
    """Prints an error of one of several processes, with `LOST` where a peer is the likely cause."""
    if not jax.distributed.is_initialized():
        return
    if isinstance(error, jax.errors.JaxRuntimeError) and not is_out_of_memory(error):
        # A failed collective comes before, or in the midst of, what the runtime has to say about
        # it.
        time.sleep(_GRACE_SECONDS)
        print(f"{error}\n{LOST}", file=sys.stderr)
    else:
        traceback.print_exception(error)


def leave_peers() -> None:
    """Ends one of several processes at once, with status 1; alone, returns.

    An ordinary exit would wait for the others, who wait for this one. They notice that it is gone.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
