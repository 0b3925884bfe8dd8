"""What every test shares.

pytest puts the directory of this file on the import path, so that every room's tests can import its
neighbours.
"""

import os
import tempfile

import pytest

# Before JAX is imported: eight devices to share a batch, and compiled programs kept for the
# session, so that the processes that tests start compile each program once. Most of the suite's
# time is compiling, which takes two thirds as long without most optimizations; with
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 the tests run what users run.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_cache = tempfile.TemporaryDirectory(prefix="resnet_jax_tests_")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name


def pytest_collection_modifyitems(items):
    """Lets the tests of tests/slow and tests/aot take as long as they take."""
    for item in items:
        if item.path.parent.name in ("slow", "aot"):
            item.add_marker(pytest.mark.timeout(0))


def pytest_ignore_collect(collection_path, config):
    """Leaves out tests/slow, which takes an hour, unless the command line names it."""
    named = any("slow" in argument for argument in config.args)
    return True if collection_path.name == "slow" and not named else None
