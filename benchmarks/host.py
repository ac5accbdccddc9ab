"""The machine that measures: its name, speed and free memory, and the versions on it."""

import importlib.metadata
import platform
import statistics
import subprocess
import time
from pathlib import Path

import torch


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
