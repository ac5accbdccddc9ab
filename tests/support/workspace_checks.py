"""Whether what an operation says it needs of the workspace is what it needs."""

import gc
import re
from collections.abc import Callable

import pytest
import torch
from engine_checks import Peak
from torch import Tensor

Run = Callable[[int], Tensor | tuple[Tensor, ...]]


def stated_need(run: Run) -> int:
    """The bytes that ``run(workspace_bytes)`` asks for where it gets one."""
    with pytest.raises(
        ValueError, match=r"workspace_bytes=1 is too small: .* \d+ bytes"
    ) as refusal:
        run(1)
    return int(re.findall(r"(\d+) bytes", str(refusal.value))[0])


def check_bound(run: Run, slack: float = 2.5) -> None:
    """``run`` takes the workspace that it asks for, and not a byte less.

    It stays within it, of which it leaves no more than ``slack`` says, and a kilobyte: rounding up
    to lines of memory, and small vectors.
    """
    need = stated_need(run)
    gc.disable()  # which would free what refusals left behind
    try:
        with Peak() as peak:
            results = run(need)
    finally:
        gc.enable()
    outputs = results if isinstance(results, tuple) else (results,)
    used = peak.bytes - sum(t.untyped_storage().nbytes() for t in outputs)
    assert used <= need <= slack * used + 1024, (used, need)
    with pytest.raises(ValueError, match=f"workspace_bytes={need - 1} is too small: .* {need} byt"):
        run(need - 1)


def float32_or(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
