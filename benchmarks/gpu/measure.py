"""What the GPU part measures beside the clock: bare products, memory, and the machine itself."""

import gc
import importlib.metadata
import os
import platform
import statistics
import subprocess
import traceback
from collections.abc import Callable

import torch

from benchmarks import host
from benchmarks.gpu.clock import DEVICE, Mark, synchronise, time_limit
from benchmarks.losses import measure
from benchmarks.losses.adapters import Inputs, Step
from benchmarks.losses.peers import first_line
from benchmarks.losses.problems import Problem

_MIB = 1 << 20
REVISION_VARIABLE = "FASTCLIP_REVISION"
_PRODUCT = 8192


class ThreeProducts:
    """B3: ``X Y^T`` to the inputs' dtype, ``G Y`` and ``G^T X``, whole matrices, by torch.

    No exact loss of this shape can do with fewer products. Between runs nothing of the size of G is
    held: the memory is that of what is measured in turns with it.
    """

    def __init__(self, problem: Problem, inputs: Inputs):
        x, y = [t.detach() for t in inputs.values() if t.ndim == 2]
        self.x, self.y = x, y.repeat(problem.ranks, 1)
        self.dx, self.dy = torch.empty_like(self.x), torch.empty_like(self.y)

    def run(self) -> tuple[Mark, Mark]:
        g = self.x.new_empty(len(self.x), len(self.y))
        start = Mark()
        torch.mm(self.x, self.y.T, out=g)
        torch.mm(g, self.y, out=self.dx)
        torch.mm(g.T, self.x, out=self.dy)
        return start, Mark()


def attempt(measured: Callable[[], dict], seconds: int) -> tuple[dict | None, str]:
    """What ``measured`` returns, or None and the first line of why it failed within ``seconds``.

    Nothing holds on to the tensors of a failure, as its traceback would; it is printed.
    """
    try:
        with time_limit(seconds):
            return measured(), ""
    except Exception as error:
        traceback.print_exc()
        return None, f"{type(error).__name__}: {first_line(error)}"
    finally:
        free_memory()


def free_memory() -> None:
    """Give back what a failed or finished implementation left."""
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def peak_mib(step: Step, inputs: Inputs) -> float:
    """Highest memory during a step beyond its inputs and the gradients that it returns, MiB."""
    if DEVICE != "cuda":
        found = {}
        peak = measure.peak_mib(lambda: found.update(step(inputs)))
        return peak - _gradient_bytes(found) / _MIB
    gc.collect()
    synchronise()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = step(inputs)
    synchronise()
    return (torch.cuda.max_memory_allocated() - before - _gradient_bytes(found)) / _MIB


def _gradient_bytes(found: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for name, tensor in found.items() if name != "loss")


def rotation(inputs: Inputs) -> int:
    """How many sets of such inputs it takes to overflow the L2 cache twice over; at least two."""
    size = sum(tensor.nbytes for tensor in inputs.values())
    return max(2, 2 * l2_bytes() // size + 1)


def l2_bytes() -> int:
    if DEVICE != "cuda":
        return 0
    return torch.cuda.get_device_properties(0).L2_cache_size


def device_name() -> str:
    return torch.cuda.get_device_name(0) if DEVICE == "cuda" else f"no GPU: {host.cpu_name()}"


def driver_version() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.split("\n")[0].strip() or None


def product_tflops(rounds: int = 11) -> float:
    """Median speed of a square bf16 product of random matrices."""
    size = _PRODUCT if DEVICE == "cuda" else 256
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    out, times = torch.empty_like(a), []
    for _ in range(rounds):
        start = Mark()
        torch.mm(a, b, out=out)
        times.append((start, Mark()))
    seconds = statistics.median(end - start for start, end in times[1:])
    return 2 * size**3 / seconds / 1e12


def machine(distributions: list[str]) -> dict:
    """Where and with what a run took place."""
    found: dict = {
        "gpu": device_name(),
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "revision": os.environ.get(REVISION_VARIABLE) or host.revision(),
        "l2_mib": l2_bytes() / _MIB,
        "product_tflops": product_tflops(),
    }
    if DEVICE == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["memory_gib"] = properties.total_memory / 2**30
    versions = {"torch": torch.__version__}
    for name in ["triton", *distributions]:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"versions": versions}
