"""How a loss is computed, whatever it is."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from fastclip.comm import Shards
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, implementation
from fastclip.ops.inputs import check_engine

REDUCE_DTYPES = ("float32", "input")


@dataclass(frozen=True)
class Engine:
    """Bound of the workspace, backend, and the dtype that text gradients cross ranks in."""

    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES
    backend: str = "auto"
    reduce_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.reduce_dtype not in REDUCE_DTYPES:
            raise ValueError(
                f"reduce_dtype={self.reduce_dtype!r}; accepted: {', '.join(REDUCE_DTYPES)}"
            )

    @property
    def call(self) -> str:
        """What ranks must share of it, in words: a tight workspace must be refused on all."""
        return f"reduce_dtype={self.reduce_dtype!r}, workspace_bytes={self.workspace_bytes}"

    def check(self, op: str, device: torch.device) -> None:
        """Raises ValueError for a backend that the operation does not have, or no workspace."""
        check_engine(self.workspace_bytes, self.backend)
        implementation(op, self.backend, device)

    def check_features(self, op: str, x: Tensor, y: Tensor) -> None:
        """Raises TypeError or ValueError for features that the backend cannot take."""
        run = implementation(op, self.backend, x.device, x.dtype)
        if hasattr(run, "check_features"):
            run.check_features(x, y)

    def reduce_scatter(self, shards: Shards, partial: Tensor, dtype: torch.dtype) -> Tensor:
        """This rank's rows of an accumulator ``[N, D]`` summed over ranks, in its own dtype."""
        wire = partial.to(dtype) if self.reduce_dtype == "input" else partial
        return shards.reduce_scatter(wire).to(partial.dtype)


@cache
def warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)
