"""What is measured beside the clock: memory, bare products, and the machine itself."""

import importlib.metadata
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from problems import Problem
from torch.profiler import ProfilerActivity, profile

_MIB = 1 << 20
_PRODUCT_BYTES = 256 * _MIB


def peak_mib(step: Callable[[], object]) -> float:
    """Highest sum of what torch's CPU allocator handed out during ``step``, above its start.

    Outputs and gradients count, the inputs do not; neither does memory that a library allocates
    for itself (oneDNN's packing buffers).
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / _MIB


class BareProducts:
    """The four products that exact InfoNCE with recomputation cannot do without, and no more.

    ``X Y^T`` twice, ``G Y`` and ``G^T X``, with nothing between them, in the problem's dtype. The
    logits are whole up to 256 MiB, beyond that a block of rows at a time.
    """

    def __init__(self, problem: Problem):
        x, y = [t.detach() for t in problem.inputs().values() if t.ndim == 2]
        rows = max(1, _PRODUCT_BYTES // (problem.columns * problem.dtype.itemsize))
        self.x, self.y, self.rows = x, y, min(rows, problem.rows)
        self.z = x.new_empty(self.rows, problem.columns)
        self.dx, self.dy = torch.empty_like(x), torch.empty_like(y)

    def seconds(self) -> float:
        """Run all four once."""
        start = time.perf_counter()
        for first in range(0, len(self.x), self.rows):
            x, dx = self.x[first : first + self.rows], self.dx[first : first + self.rows]
            z = self.z[: len(x)]
            torch.mm(x, self.y.T, out=z)
            torch.mm(x, self.y.T, out=z)
            torch.mm(z, self.y, out=dx)
            torch.mm(z.T, x, out=self.dy)
        return time.perf_counter() - start


def bare_gflops(size: int = 2048, rounds: int = 9) -> float:
    """Median speed of a square fp32 product."""
    a, b, c = torch.rand(size, size), torch.rand(size, size), torch.empty(size, size)
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        torch.mm(a, b, out=c)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times[1:]) / 1e9


def available_bytes() -> int:
    """Memory that a new allocation could get, by the kernel's own estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def revision() -> str | None:
    """The checkout's commit, with ``+`` where tracked files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def machine(distributions: list[str]) -> dict:
    """Where and with what a run took place."""
    versions = {name: version(name) for name in distributions}
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: found for name, found in versions.items() if found},
        "revision": revision(),
        "bare_product_gflops": round(bare_gflops(), 1),
    }
