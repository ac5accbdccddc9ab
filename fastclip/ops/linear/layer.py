"""What the losses of a linear layer's output share: checks of arguments, weights and reductions.

``hidden [n, D]``, ``weight [V, D]`` and ``bias [V]`` or None are of one dtype. ``row_weight [n]``
is the factor of each row's loss, None for 1. A gradient that is not needed is empty along its first
dimension and costs nothing. ``workspace_bytes`` bounds memory beyond inputs, outputs and
accumulators, ``backend`` names who computes.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fastclip.ops.inputs import accumulation_dtype, gradient_wanted, matched, statistics_dtype

REDUCTIONS = ("mean", "sum", "none")


class RowsCall(Protocol):
    """What the packs of all ``*_rows`` ops have: the layer, the rows' weights, and which gradients
    are wanted."""

    @property
    def hidden(self) -> Tensor: ...
    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | None: ...
    @property
    def row_weight(self) -> Tensor | None: ...
    @property
    def need_hidden(self) -> bool: ...
    @property
    def need_weight(self) -> bool: ...
    @property
    def need_bias(self) -> bool: ...
    @property
    def workspace_bytes(self) -> int: ...


class Layer(NamedTuple):
    """``hidden [n, D]``, ``weight [V, D]`` and ``bias [V]`` or None, in one dtype."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None

    def needs(self) -> tuple[bool, bool, bool]:
        hidden, weight, bias = (gradient_wanted(t) for t in self)
        return hidden, weight, bias


def check_layer(hidden: Tensor, weight: Tensor, bias: Tensor | None, reduction: str) -> Layer:
    """The arguments of a public function, checked, with hidden's leading dimensions flattened."""
    names = ["hidden", "weight"] + ([] if bias is None else ["bias"])
    tensors = matched(names, [t for t in (hidden, weight, bias) if t is not None])
    hidden, weight, bias = tensors[0], tensors[1], None if bias is None else tensors[2]
    if hidden.ndim < 1 or weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden and weight have shapes {tuple(hidden.shape)} and {tuple(weight.shape)}; "
            "accepted: [..., D] and [V, D] with the same D"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; accepted: {tuple(weight.shape[:1])}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}; accepted: 'mean', 'sum', 'none'")
    return Layer(hidden.reshape(-1, hidden.shape[-1]), weight, bias)


def refuse_gradient(name: str, tensor: Tensor | None) -> None:
    """Raise ValueError for targets or weights that want a gradient, which no op here gives."""
    if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient; accepted: constants, as of {name}.detach()")


def check_row_weight(row_weight: Tensor | None, hidden: Tensor, rows: Layer) -> Tensor | None:
    """A public function's factors of the losses of ``rows``, flattened as they are; None for 1.

    ``hidden`` is as it was given, with its leading dimensions.
    """
    if row_weight is None:
        return None
    accepted = {torch.float32, accumulation_dtype(rows.hidden.dtype)}
    if not isinstance(row_weight, Tensor) or row_weight.dtype not in accepted:
        found = row_weight.dtype if isinstance(row_weight, Tensor) else type(row_weight).__name__
        names = " or ".join(sorted(str(dtype) for dtype in accepted))
        raise TypeError(f"row_weight is {found}; accepted: a tensor of {names}")
    if row_weight.shape != hidden.shape[:-1]:
        raise ValueError(
            f"row_weight has shape {tuple(row_weight.shape)}; accepted: "
            f"{tuple(hidden.shape[:-1])}, hidden's without its last dimension"
        )
    if row_weight.device != hidden.device:
        raise ValueError(f"row_weight is on {row_weight.device} but hidden on {hidden.device}")
    refuse_gradient("row_weight", row_weight)
    return row_weight.reshape(-1)


def weights_of(
    counts: Tensor, row_weight: Tensor | None, picked: Tensor | slice = slice(None)
) -> Tensor:
    """What the losses of the picked rows are multiplied by, in the dtype of statistics: nothing of
    a row that does not count, whatever its weight is."""
    dtype = statistics_dtype(counts.device)
    if row_weight is None:
        return counts.to(dtype)
    return torch.where(counts, row_weight[picked], 0).to(dtype)


def fake_rows(call: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a ``*_rows`` op returns for its pack, uninitialised: losses, gradients of hidden,
    weight, bias."""
    hidden, vocabulary = call.hidden, call.weight.shape[0]
    dtype, (n, width) = accumulation_dtype(hidden.dtype), hidden.shape
    return (
        hidden.new_empty(n, dtype=statistics_dtype(hidden.device)),
        hidden.new_empty((n if call.need_hidden else 0, width), dtype=dtype),
        hidden.new_empty((vocabulary if call.need_weight else 0, width), dtype=dtype),
        hidden.new_empty(vocabulary if call.need_bias else 0, dtype=dtype),
    )


def fake_loss(call: Any, rows_call: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What a reducing op returns for its pack, and that of its rows, uninitialised."""
    hidden = call.hidden
    dtype = accumulation_dtype(hidden.dtype)
    loss = hidden.new_empty(hidden.shape[:1] if call.reduction == "none" else (), dtype=dtype)
    return loss, hidden.new_empty((), dtype=dtype), *fake_rows(rows_call)[1:]


def reduced(
    losses: Tensor, count: Tensor | int, reduction: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The loss and its divisor (0-d) in ``dtype``: ``count``, that of the losses which count, for a
    mean, else 1; and 0 where none counts, which leaves a loss of 0."""
    divisor = losses.new_ones(()) * count
    if reduction != "mean":
        divisor.clamp_(max=1)
    loss = losses if reduction == "none" else losses.sum() / divisor.clamp(min=1)
    return loss.to(dtype, copy=True), divisor.to(dtype, copy=True)
