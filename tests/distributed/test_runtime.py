"""Freed memory stays with the process, in large pages: as the system counts them."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource
from resnet_jax.distributed.runtime import keep_freed_memory
kept = {kept}
first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    b"x" * (40 * 2**20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)
"""


def run(kept, **environment):
    command = [sys.executable, "-c", FAULTS.format(kept=kept)]
    environment = {"PATH": "", "JAX_PLATFORMS": "cpu", **environment}
    said = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    return said[0], int(said[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is tuned")
def test_memory_that_was_freed_is_used_again_without_page_faults():
    _, usual = run("False")
    could, faults = run("keep_freed_memory()")
    assert could == "True"
    # One of the five blocks is new in any case: a fifth.
    assert faults < usual / 3


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="Linux without huge pages"
)
def test_memory_that_is_allocated_later_is_marked_for_huge_pages():
    def marked(keep):
        script = f"""
from resnet_jax.distributed.runtime import keep_freed_memory
{keep}
block = bytearray(40 * 2**20)
print(*(line for line in open("/proc/self/smaps") if line.startswith("VmFlags") and " hg" in line))
"""
        command = [sys.executable, "-c", script]
        environment = {"PATH": "", "JAX_PLATFORMS": "cpu"}
        return subprocess.check_output(command, env=environment, text=True).strip()

    assert marked("keep_freed_memory()")
    assert not marked("")


def test_a_user_who_tunes_the_allocator_keeps_that():
    assert run("keep_freed_memory()", MALLOC_ARENA_MAX="2")[0] == "False"
