"""A linear layer over some of its columns: softmaxes of those that a batch names.

Training on the classes of the batch alone, as of Joulin et al., ECCV 2016, and Li et al., ICCV
2017, where there are a hundred thousand.
"""

import torch
from torch import Tensor

from fastclip.ops.linear.csr import Csr
from fastclip.ops.linear.layer import Layer


def pick_columns(rows: Layer, columns: Tensor | None) -> Layer:
    """The layer of these columns alone, all for None; their gradients go back to their rows of
    weight and bias, the others' are 0."""
    if columns is None:
        return rows
    if columns.ndim != 1 or columns.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"columns is {columns.dtype} of shape {tuple(columns.shape)}; accepted: [C] in int64 "
            "or int32"
        )
    if not len(columns):
        raise ValueError("columns is empty; accepted: 1 column or more")
    if columns.device != rows.weight.device:
        raise ValueError(f"columns is on {columns.device} but weight on {rows.weight.device}")
    bias = None if rows.bias is None else rows.bias.index_select(0, columns)
    return Layer(rows.hidden, rows.weight.index_select(0, columns), bias)


def places_of(name: str, ids: Tensor, columns: Tensor | None, ignored: int = -1) -> Tensor:
    """Where ``ids``, those of the argument ``name``, stand among the columns; ``ignored`` stays."""
    if columns is None:
        return ids
    return _places(ids.long(), columns.long(), ignored, name)


def csr_among(target: Csr, columns: Tensor | None) -> Csr:
    """Sparse targets by their places among the columns."""
    return target._replace(columns=places_of("col_indices", target.columns, columns))


@torch.library.custom_op("fastclip::places_among_columns", mutates_args=())
def _places(ids: Tensor, columns: Tensor, ignored: int, name: str) -> Tensor:
    if columns.device.type == "cpu" and (columns.diff() <= 0).any():
        raise IndexError("columns does not rise; accepted: sorted, each column once")
    places = torch.searchsorted(columns, ids).clamp_(max=len(columns) - 1)
    known = (columns[places] == ids) | (ids == ignored)
    if ids.device.type == "cpu":
        if not known.all():
            raise IndexError(f"{name} holds {int(ids[~known][0])}, which is none of columns")
    elif ids.device.type == "cuda":
        torch._assert_async(known.all(), f"{name} must be among columns")
    return torch.where(ids == ignored, ids, places)


@_places.register_fake
def _(ids: Tensor, columns: Tensor, ignored: int, name: str) -> Tensor:
    return torch.empty_like(ids)
