"""Inputs and yardsticks that the tests of all operations share."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# "aligned" is half learned at a scale of 100, "converged" has losses of 1e-20 there.
KINDS = ("normalised", "unnormalised", "identical", "aligned", "converged", "outlier")


def features(kind: str, n: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two float64 matrices [n, width] whose entries every dtype can hold."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, width, generator=generator, dtype=torch.float64)
    if kind == "unnormalised":
        x, y = 0.3 * x, 0.3 * y
    elif kind == "identical":
        x, y = x[:1].expand(n, -1), y[:1].expand(n, -1)
    elif kind == "aligned":
        y = x + 2 * y
    elif kind == "converged":
        y = x + 0.7 * y
    elif kind == "outlier":
        y = x + y
    if kind != "unnormalised":
        x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    if kind == "outlier":
        x = x.clone()
        x[0] *= 3
    return x.bfloat16().half().double(), y.bfloat16().half().double()


def outcome(loss: Callable, inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Loss and gradients, as float64, of ``loss`` called on copies of ``inputs``.

    Matrices are given in ``dtype``; vectors and scalars in no less than float32.
    """
    at_least = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = [t.to(dtype if t.ndim > 1 else at_least, copy=True).requires_grad_() for t in inputs]
    value = loss(*leaves)
    value.sum().backward()
    return [value.detach().double(), *(leaf.grad.double() for leaf in leaves)]


def error(got: Tensor, truth: Tensor) -> float:
    return (got - truth).norm().item()


def assert_no_worse_than_eager(
    ours: list[Tensor],
    eager: list[Tensor],
    truth: list[Tensor],
    dtype: torch.dtype,
    floors: Sequence[float],
) -> None:
    """Every error at most 1.25 times eager torch's, plus a unit of the output.

    The unit is 1e-6 of the norm (of a float64 output 1e-13), the rounding of a 16-bit gradient, and
    that part of ``floors``, the norm an output has before it converges towards zero.
    """
    unit = 1e-13 if dtype == torch.float64 else 1e-6
    names = ["loss", *(f"gradient {k}" for k in range(len(ours) - 1))]
    for name, got, base, want, floor in zip(names, ours, eager, truth, floors, strict=True):
        rounding = torch.finfo(dtype).eps / 2 if want.ndim > 1 else 0.0
        bound = 1.25 * error(base, want) + (unit + rounding) * want.norm().item() + unit * floor
        assert torch.isfinite(got).all(), name
        assert error(got, want) <= bound, (name, error(got, want), error(base, want), bound)


class Peak:
    """Peak bytes that torch's CPU allocator had in use above those at entry."""

    def __enter__(self) -> "Peak":
        self._profile = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        )
        self._profile.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._profile.__exit__(*exception)
        used = self.bytes = 0
        for event in self._profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                used += event.nbytes()
                self.bytes = max(self.bytes, used)
