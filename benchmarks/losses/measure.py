"""What is measured of a loss beside the clock: memory and bare products."""

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.losses.problems import Problem

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
