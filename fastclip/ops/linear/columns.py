"""A linear layer over some of its columns: softmaxes of those that a batch names.

Training on the classes of the batch alone, as of Joulin et al., ECCV 2016, and Li et al., ICCV
2017, where there are a hundred thousand.
"""

import torch
from torch import Tensor

from fastclip.ops.linear.csr import Csr, check_columns
from fastclip.ops.linear.layer import Layer


def pick_columns(rows: Layer, columns: Tensor | None) -> Layer:
    """The layer of these columns alone, all for None; their gradients go back to their rows of
    weight and bias, the others' are 0.

    Raises TypeError, ValueError or IndexError for columns that are none, do not rise or are not on
    the weight's device (on a GPU the device asserts what they hold).
    """
    if columns is None:
        return rows
    if not isinstance(columns, Tensor):
        raise TypeError(f"columns is a {type(columns).__name__}; accepted: a torch tensor or None")
    if columns.ndim != 1 or columns.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"columns is {columns.dtype} of shape {tuple(columns.shape)}; accepted: [C] in int64 "
            "or int32"
        )
    if not len(columns):
        raise ValueError("columns is empty; accepted: 1 column or more")
    if columns.device != rows.weight.device:
        raise ValueError(f"columns is on {columns.device} but weight on {rows.weight.device}")
    columns = _checked(columns.long(), len(rows.weight))
    bias = None if rows.bias is None else rows.bias.index_select(0, columns)
    return Layer(rows.hidden, rows.weight.index_select(0, columns), bias)


def places_of(name: str, ids: Tensor, columns: Tensor | None, ignored: int | None = None) -> Tensor:
    """Where ``ids``, those of the argument ``name``, stand among the columns; -1 of ``ignored``."""
    if columns is None:
        return ids
    return _places(ids.long(), columns.long(), ignored, name)


def csr_among(target: Csr, columns: Tensor | None) -> Csr:
    """Sparse targets by their places among the columns."""
    return target._replace(columns=places_of("col_indices", target.columns, columns))


@torch.library.custom_op("fastclip::checked_columns", mutates_args=())
def _checked(columns: Tensor, vocabulary: int) -> Tensor:
    check_columns("columns", columns, vocabulary)
    if columns.device.type == "cpu":
        if (columns.diff() <= 0).any():
            raise IndexError("columns does not rise; accepted: sorted, each column once")
    elif columns.device.type == "cuda":
        torch._assert_async((columns.diff() > 0).all(), "columns must rise")
    return columns.clone()  # an op's result is no alias of what it was given


@_checked.register_fake
def _(columns: Tensor, vocabulary: int) -> Tensor:
    return torch.empty_like(columns)


@torch.library.custom_op("fastclip::places_among_columns", mutates_args=())
def _places(ids: Tensor, columns: Tensor, ignored: int | None, name: str) -> Tensor:
    places = torch.searchsorted(columns, ids).clamp_(max=len(columns) - 1)
    left_out = torch.zeros_like(ids, dtype=torch.bool) if ignored is None else ids == ignored
    known = (columns[places] == ids) | left_out
    if ids.device.type == "cpu":
        if not known.all():
            raise IndexError(f"{name} holds {int(ids[~known][0])}, which is none of columns")
    elif ids.device.type == "cuda":
        torch._assert_async(known.all(), f"{name} must be among columns")
    return places.masked_fill_(left_out, -1)


@_places.register_fake
def _(ids: Tensor, columns: Tensor, ignored: int | None, name: str) -> Tensor:
    return torch.empty_like(ids)
