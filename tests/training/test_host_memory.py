"""What glibc does with freed buffers, seen in a process of its own."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the C library is not glibc"
)

ROUNDS = """
import mmap, resource
from fastclip.training import host_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE >> 20

def round(megabytes):
    [b"x" * (megabytes << 20) for _ in range(2)]
"""


def run(code: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS + code], capture_output=True, text=True, check=True
    )
    return [int(value) for value in done.stdout.split()]


FAULTS = "round(64); start = faults(); round(64); print(faults() - start)"


def test_kept_buffers_are_cleared_once():
    (by_default,) = run(FAULTS)
    (kept,) = run(f"host_memory.keep_large_buffers(); {FAULTS}")
    assert 4 * kept < by_default


# A block at the heap's end keeps glibc from giving back what lies below it.
HELD = """
round(24)
low = [b"x" * (24 << 20) for _ in range(4)]
end = [bytes(1 << 16) for _ in range(64)]
del low
print(held())
"""


def test_returned_buffers_leave_the_process():
    (by_default,) = run(HELD)
    (returned,) = run(f"host_memory.return_large_buffers(){HELD}")
    assert by_default - returned > 60
