"""What glibc does with freed buffers, seen in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest
from ranks import run_ranks
from toy import toy_trainer

from fastclip.training.config import train_config

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
    ours = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    command = [sys.executable, "-c", ROUNDS + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
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
    (again,) = run(
        f"host_memory.keep_large_buffers(); round(64); host_memory.return_large_buffers(){HELD}"
    )
    assert again - returned < 40


def chosen(rank: int) -> list[str]:
    """What trainers of one and of two micro-batches a step ask of the C library."""
    from fastclip.training import distributed, trainer

    found: list[str] = []
    trainer.keep_large_buffers = lambda: found.append("keep")
    trainer.return_large_buffers = lambda: found.append("return")
    ranks = distributed.start()
    for micro in (None, 8):
        cfg = train_config(train_batch_size=16, train_micro_batch_size_per_gpu=micro)
        toy_trainer(ranks, cfg)
    distributed.stop()
    return found


def test_steps_of_one_micro_batch_keep_their_buffers():
    assert run_ranks(chosen, 1) == [["keep", "return"]]
