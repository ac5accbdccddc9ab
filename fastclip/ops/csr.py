"""Sparse targets: for each row the columns it names, and their weights (compressed sparse rows)."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear import refuse_gradient

CsrTarget = Tensor | tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None]

# What the entries of CSR targets take of the workspace at most, each, in the torch backends.
ENTRY_BYTES = 128


class Csr(NamedTuple):
    """Row i names ``columns[rows[i]:rows[i + 1]]``, with ``values`` there or 1 each.

    ``rows [n + 1]`` and ``columns [entries]`` are int64.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor | None


def csr(target: CsrTarget, hidden: Tensor, vocabulary: int) -> Csr:
    """A target of the public functions as CSR, its shapes and dtypes checked.

    Args:
        target: a ``torch.sparse_csr`` tensor ``[n, V]``, or its ``(crow_indices [n + 1],
            col_indices [entries])`` with all values 1, or those and ``values [entries]``.
        hidden: ``[..., D]`` of n rows in all.
    """
    n = hidden.shape[:-1].numel()
    values: Tensor | None = None
    if isinstance(target, tuple):
        if len(target) not in (2, 3):
            raise ValueError(
                f"target is a tuple of {len(target)}; accepted: (crow_indices, col_indices) or "
                "(crow_indices, col_indices, values)"
            )
        rows, columns = target[:2]
        values = target[2] if len(target) == 3 else None
    elif target.layout == torch.sparse_csr:
        if target.shape != (n, vocabulary):
            raise ValueError(
                f"target has shape {tuple(target.shape)}; accepted: {(n, vocabulary)}, "
                "the rows of hidden and the rows of weight"
            )
        refuse_gradient("target", target)
        rows, columns, values = target.crow_indices(), target.col_indices(), target.values()
    else:
        raise TypeError(
            f"target is a tensor of layout {target.layout}; accepted: torch.sparse_csr, or a tuple "
            "(crow_indices, col_indices[, values])"
        )
    if rows.shape != (n + 1,):
        raise ValueError(
            f"crow_indices has shape {tuple(rows.shape)}; accepted: {(n + 1,)}, one more than the "
            f"{n} rows of hidden"
        )
    if columns.ndim != 1 or (values is not None and values.shape != columns.shape):
        shapes = [tuple(t.shape) for t in (columns, values) if t is not None]
        raise ValueError(
            f"col_indices and values have shapes {shapes}; accepted: [entries], both the same"
        )
    for name, index in (("crow_indices", rows), ("col_indices", columns)):
        if index.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"{name} is {index.dtype}; accepted: int64 or int32")
    for name, tensor in zip(Csr._fields, (rows, columns, values), strict=True):
        if tensor is not None and tensor.device != hidden.device:
            raise ValueError(f"target's {name} is on {tensor.device} but hidden on {hidden.device}")
    refuse_gradient("values", values)
    return Csr(rows.long(), columns.long(), values)


def check_indices(target: Csr, vocabulary: int) -> None:
    """Raise IndexError for indices that are no CSR of ``vocabulary`` columns.

    A GPU asserts on its own instead, to spare a synchronisation.
    """
    rows, columns, _ = target
    if rows.device.type == "cpu":
        steps = rows.diff()
        if rows[0] != 0 or rows[-1] != len(columns) or (steps < 0).any():
            raise IndexError(
                f"crow_indices goes from {int(rows[0])} to {int(rows[-1])} in steps of at least "
                f"{int(steps.amin()) if len(steps) else 0}; accepted: from 0 to the {len(columns)} "
                "entries of col_indices, never falling"
            )
        if len(columns):
            low, high = columns.aminmax()
            if low < 0 or high >= vocabulary:
                raise IndexError(
                    f"col_indices holds {int(low if low < 0 else high)}; accepted: 0 to "
                    f"{vocabulary - 1}"
                )
    elif rows.device.type == "cuda":
        ordered = (rows[0] == 0) & (rows[-1] == len(columns)) & (rows.diff() >= 0).all()
        torch._assert_async(ordered, "crow_indices must go from 0 to the number of entries")
        inside = (columns >= 0) & (columns < vocabulary)
        torch._assert_async(inside.all(), f"col_indices must lie in 0 to {vocabulary - 1}")


class Entries:
    """The entries of CSR targets one by one, sorted by row and column.

    ``index [kept]`` are the rows that are computed: by default those with entries, or all of a
    GPU's, to spare a synchronisation. Rows below count those. Vectors ``[entries]``: ``row``,
    ``column``, ``value`` as given, ``total`` the sum over all entries at the same place, ``first``
    whether an entry is the first there, ``place`` the entry's in ``[kept, V]``, flattened.
    """

    def __init__(self, target: Csr, vocabulary: int, index: Tensor | None = None) -> None:
        rows, columns, values = target
        counts = rows.diff()
        if index is None:
            index = torch.arange(len(counts), device=rows.device)
            if rows.device.type == "cpu":
                index = index[counts > 0]
        self.index = index
        counts = counts[index]
        self._ends = torch.cat([rows[:1], counts.cumsum(0)]) if rows.device.type == "cpu" else None
        self.row = torch.repeat_interleave(
            torch.arange(len(index), device=rows.device), counts, output_size=len(columns)
        )
        self._vocabulary = vocabulary
        self.place, order = (self.row * vocabulary + columns).sort(stable=True)
        self.column = columns[order]
        dtype = statistics_dtype(rows.device)
        if values is None:
            self.value = columns.new_ones(len(columns), dtype=dtype)
        else:
            self.value = values[order].to(dtype)
        self.first = torch.ones_like(self.place, dtype=torch.bool)
        torch.ne(self.place[1:], self.place[:-1], out=self.first[1:])
        group = self.first.cumsum(0).sub_(1)
        sums = torch.zeros_like(self.value).index_put_((group,), self.value, accumulate=True)
        self.total = sums[group]

    def row_sums(self, values: Tensor) -> Tensor:
        """Sums of a vector ``[entries]`` over each row, in a fixed order."""
        sums = values.new_zeros(len(self.index))
        return sums.index_put_((self.row,), values, accumulate=True)

    def of(self, vector: Tensor) -> Tensor:
        """A vector over the computed rows, at each entry's."""
        return vector[self.row]

    def span(self, chunk: slice) -> slice:
        """Entries among which are those of the chunk's rows; all of them on a GPU."""
        if self._ends is None:
            return slice(0, len(self.row))
        return slice(int(self._ends[chunk.start]), int(self._ends[chunk.stop]))

    def places(self, chunk: slice) -> tuple[Tensor, Tensor]:
        """Where the entries of ``span(chunk)`` stand in the chunk's ``[rows, V]``, flattened, and
        which do; those of other rows are given the place after the last."""
        span = self.span(chunk)
        row = self.row[span]
        inside = (row >= chunk.start) & (row < chunk.stop)
        place = self.place[span] - chunk.start * self._vocabulary
        return place.masked_fill_(~inside, (chunk.stop - chunk.start) * self._vocabulary), inside

    def bounds(self, rows: slice, columns: slice, step: int) -> Tensor:
        """``[ceil(columns / step) + 1, rows]``: where the entries of each row that lie at or beyond
        columns ``columns.start``, ``+ step``, ... and ``columns.stop`` begin."""
        edges = torch.arange(columns.start, columns.stop + step, step, device=self.row.device)
        edges.clamp_(max=columns.stop)
        row = torch.arange(rows.start, rows.stop, device=self.row.device)
        wanted = torch.add(edges.unsqueeze(1), row, alpha=self._vocabulary)
        return torch.searchsorted(self.place, wanted, out_int32=len(self.row) < 2**31)
