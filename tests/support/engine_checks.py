"""Inputs and yardsticks that the tests of all operations share."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from bars import Bars, unit_roundoff
from torch import Tensor

from fastclip.ops import reference
from fastclip.ops.infonce import infonce_backward

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


def clip_bars(
    x: Tensor, y: Tensor, scale: Tensor, dtype: torch.dtype, *, gpu: bool = False, kind: str = ""
) -> Bars:
    """Of ``clip_loss`` on ``features`` of a ``kind``."""
    n = len(x)
    weight, target = x.new_full((n,), 0.5 / n), torch.eye(n).to(x) * (0.5 / n)
    bars = Bars(x, y, scale, dtype=dtype, gpu=gpu, alike=kind == "identical")
    return bars.softmax(1, weight, target).softmax(0, weight, target)


def siglip_bars(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    dtype: torch.dtype,
    *,
    gpu: bool = False,
    kind: str = "",
) -> Bars:
    """Of ``siglip_loss`` on ``features`` of a ``kind``."""
    n, pairs = len(x), torch.eye(len(x)).to(x)
    bars = Bars(x, y, scale, bias, dtype=dtype, gpu=gpu, alike=kind == "identical")
    return bars.sigmoid(pairs / n, (1 - pairs) / n)


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


def check_log_sum_exps_keep_their_digits(kept: Tensor, backend: str) -> None:
    """Logits of 1,024 bits, log-sum-exps a quarter of float32's last digit above them.

    ``kept`` is what a forward without kept logits leaves for the backward on ``backend``.
    """
    scale = torch.tensor(1024.0).double() * torch.tensor(2.0).double().log()
    x, y, lse = torch.ones(1, 8) / 8, torch.ones(2, 8), scale * (1 + 2.0**-25 + 2.0**-27)
    known = lse.expand(1), lse.expand(2), scale.expand(1), torch.ones(1), torch.zeros(2)
    how = kept, 0, True, True, False, 2**28, backend
    got, _ = infonce_backward(x, y, scale, *known, *how)
    want, _ = reference.infonce_backward(x.double(), y.double(), scale, *known, 0, True)
    torch.testing.assert_close(got.double(), want, rtol=8 * unit_roundoff(torch.float32), atol=0)
