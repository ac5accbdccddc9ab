"""How a loss is computed, whatever it is."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from fastclip.comm import Shards
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES

REDUCE_DTYPES = ("float32", "input")


@dataclass(frozen=True)
class ComputeOptions:
    """Bound of the workspace, backend, and the dtype that text gradients cross ranks in.

    ``words`` are what ranks must share of it: a tight workspace must be refused on all. Raises
    ValueError for a ``reduce_dtype`` that is none.
    """

    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES
    backend: str = "auto"
    reduce_dtype: str = "float32"
    words: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        if self.reduce_dtype not in REDUCE_DTYPES:
            raise ValueError(
                f"reduce_dtype={self.reduce_dtype!r}; accepted: {', '.join(REDUCE_DTYPES)}"
            )
        words = f"reduce_dtype={self.reduce_dtype!r}, workspace_bytes={self.workspace_bytes}"
        object.__setattr__(self, "words", words)

    def reduce_scatter(self, shards: Shards, partial: Tensor, dtype: torch.dtype) -> Tensor:
        """This rank's rows of an accumulator ``[N, D]`` summed over ranks, in its own dtype;
        ``dtype`` is that of the features."""
        sent = partial.to(dtype) if self.reduce_dtype == "input" else partial
        return shards.reduce_scatter(sent).to(partial.dtype)


@dataclass(frozen=True)
class GivenIds:
    """What a call has beside pairs: ``ids [n]`` or None, what becomes of pairs of one id, and
    ``extra_texts [k, D]`` or None. See ``clip_loss``."""

    ids: Tensor | None = None
    same: str = "positive"
    extra_texts: Tensor | None = None

    def words(self, equal: bool) -> str:
        """What ranks must share of it; with ``equal`` shards they share the number of extra texts
        as well."""
        words = "" if self.ids is None else f", ids, same={self.same!r}"
        extra = self.extra_texts
        if extra is not None:
            known = equal and isinstance(extra, Tensor) and extra.ndim
            words += f", {extra.shape[0]} extra_texts" if known else ", extra_texts"
        return words


@cache
def warn_once(message: str) -> None:
    """Warns, the first time in this process."""
    warnings.warn(message, stacklevel=2)
