"""Sparse targets: for each row the columns it names, and their weights (compressed sparse rows)."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastclip.ops.linear.layer import refuse_gradient

CsrTarget = Tensor | tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None]


class Csr(NamedTuple):
    """Row i names ``columns[rows[i]:rows[i + 1]]``, with ``values`` there or 1 each.

    ``rows [n + 1]`` and ``columns [entries]`` are int64 or int32.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor | None

    def part(self, span: slice) -> "Csr":
        """These rows alone; of all rows without reading any index, which would wait for a GPU."""
        if span == slice(0, len(self.rows) - 1):
            return self
        rows = self.rows[span.start : span.stop + 1]
        entries = slice(int(rows[0]), int(rows[-1]))
        values = None if self.values is None else self.values[entries]
        return Csr(rows - rows[0], self.columns[entries], values)


def as_csr(target: CsrTarget, hidden: Tensor, vocabulary: int) -> Csr:
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
    check_row_starts(rows, hidden)
    check_index("col_indices", columns, hidden)
    if columns.ndim != 1 or (values is not None and values.shape != columns.shape):
        shapes = [tuple(t.shape) for t in (columns, values) if t is not None]
        raise ValueError(
            f"col_indices and values have shapes {shapes}; accepted: [entries], both the same"
        )
    if values is not None and values.device != hidden.device:
        raise ValueError(f"target's values is on {values.device} but hidden on {hidden.device}")
    refuse_gradient("values", values)
    return Csr(rows, columns, values)


def check_row_starts(rows: Tensor, hidden: Tensor) -> None:
    """``crow_indices`` of ``hidden [..., D]``: raise TypeError or ValueError for what is none."""
    check_index("crow_indices", rows, hidden)
    n = hidden.shape[:-1].numel()
    if rows.shape != (n + 1,):
        raise ValueError(
            f"crow_indices has shape {tuple(rows.shape)}; accepted: {(n + 1,)}, one more than the "
            f"{n} rows of hidden"
        )


def check_index(name: str, index: Tensor, hidden: Tensor) -> None:
    """Raise TypeError or ValueError for what is no tensor of indices beside hidden."""
    if not isinstance(index, Tensor):
        raise TypeError(f"{name} is a {type(index).__name__}; accepted: a torch tensor")
    if index.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} is {index.dtype}; accepted: int64 or int32")
    if index.device != hidden.device:
        raise ValueError(f"target's {name} is on {index.device} but hidden on {hidden.device}")


def check_indices(target: Csr, vocabulary: int) -> None:
    """Raise IndexError for indices that are no CSR of ``vocabulary`` columns.

    A GPU asserts on its own instead, to spare a synchronisation.
    """
    check_rows(target.rows, len(target.columns), "entries of col_indices")
    check_columns("col_indices", target.columns, vocabulary)


def check_rows(rows: Tensor, count: int, of_what: str) -> None:
    """Raise IndexError for ``crow_indices`` that do not cut ``count`` of something in rows."""
    if rows.device.type == "cpu":
        steps = rows.diff()
        if rows[0] != 0 or rows[-1] != count or (steps < 0).any():
            raise IndexError(
                f"crow_indices goes from {int(rows[0])} to {int(rows[-1])} in steps of at least "
                f"{int(steps.amin()) if len(steps) else 0}; accepted: from 0 to the {count} "
                f"{of_what}, never falling"
            )
    elif rows.device.type == "cuda":
        ordered = (rows[0] == 0) & (rows[-1] == count) & (rows.diff() >= 0).all()
        torch._assert_async(ordered, f"crow_indices must go from 0 to the number of {of_what}")


def check_columns(name: str, columns: Tensor, vocabulary: int, least: int = 0) -> None:
    """Raise IndexError for columns that are not ``least`` to ``vocabulary`` - 1."""
    if columns.device.type == "cpu":
        if columns.numel():
            low, high = columns.aminmax()
            if low < least or high >= vocabulary:
                raise IndexError(
                    f"{name} holds {int(low if low < least else high)}; accepted: {least} to "
                    f"{vocabulary - 1}"
                )
    elif columns.device.type == "cuda":
        inside = (columns >= least) & (columns < vocabulary)
        torch._assert_async(inside.all(), f"{name} must lie in {least} to {vocabulary - 1}")
