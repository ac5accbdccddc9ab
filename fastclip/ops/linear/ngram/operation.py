"""Softmax cross entropy against mixtures of n-grams, of a linear layer's output.

``loss_i = - sum_position log sum_m c_m p_i,id(position, m)`` with ``p_i = softmax(z_i)``: a caption
in n-grams of several orders, smoothed by each other (Li, Jabri, Joulin and van der Maaten,
"Learning visual n-grams from web data", ICCV 2017; Jelinek and Mercer 1980). Its gradient is that
of ``multi_target_cross_entropy`` whose weights are the responsibilities of the n-grams for their
positions. Logits never exist whole; costs are those of ``linear_cross_entropy``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, resolve_for_graph
from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear.columns import pick_columns, places_of
from fastclip.ops.linear.csr import check_index, check_row_starts
from fastclip.ops.linear.layer import check_layer, check_row_weight, refuse_gradient
from fastclip.ops.linear.ngram.packs import NgramCall, NgramRows
from fastclip.ops.linear.ngram.positions import Ngrams
from fastclip.ops.linear.registration import register


def _count(call: NgramCall) -> Tensor:
    return (call.target.counts() > 0).sum()


_loss = register("ngram_cross_entropy", NgramRows, NgramCall, _count)
ngram_cross_entropy_rows, ngram_cross_entropy_op = _loss.rows, _loss.op


def jelinek_mercer(orders: int, weight: float = 0.2) -> list[float]:
    """What each order has in a mixture of n-grams, from 1 to ``orders``: ``weight`` the highest,
    ``weight`` of the rest the next, and so on, and all that is left the lowest."""
    numbers = isinstance(orders, int) and isinstance(weight, int | float)
    if not numbers or orders < 1 or not 0 <= weight <= 1:
        raise ValueError(f"orders={orders!r}, weight={weight!r}; accepted: 1 or more, 0 to 1")
    higher = [weight * (1 - weight) ** back for back in range(orders - 1)]
    return [(1 - weight) ** (orders - 1), *reversed(higher)]


def ngram_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: tuple[Tensor, Tensor],
    bias: Tensor | None = None,
    *,
    mixture: Sequence[float] | Tensor,
    reduction: str = "mean",
    row_weight: Tensor | None = None,
    columns: Tensor | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
) -> Tensor:
    """``-sum log sum_m c_m softmax(z_i)_id(m)`` of ``z = F.linear(hidden, weight, bias)``, the
    outer sum over the positions of row i, without z.

    Args:
        hidden: ``[..., D]`` of n rows in all. weight: ``[V, D]``. bias: ``[V]`` or None. float32,
            bfloat16, float16 or float64, one dtype for all outside autocast.
        target: ``(crow_indices [n + 1], ngrams [positions, orders])``, int64 or int32: row i has
            the positions ``crow_indices[i]`` to ``crow_indices[i + 1]``, each a column of
            ``weight`` an order, or -1 where its n-gram of that order has none.
        mixture: ``[orders]``, the weights c of the orders, 0 or more: as of ``jelinek_mercer``.
            Constants.
        reduction: ``"mean"`` over the rows that have any position, ``"sum"``, or ``"none"``. A
            position of which no order is there, or none that weighs anything, is left out, and rows
            of no position have loss 0 and no gradient.
        row_weight: ``[...]`` factor of each row's loss, of any sign, None for 1: a constant in
            float32 or the accumulation dtype. The mean divides by the number of rows all the same,
            not by the sum of the weights. A row of weight 0 has no loss and no gradient whatever
            its logits are, on the triton backend if they are finite.
        columns: ``[C]``, int64 or int32, sorted, each once, or None for all: the softmax is over
            these columns alone, among which all targets must be. Beyond the workspace that takes a
            copy of their rows of weight, whose gradients go back to them.
        workspace_bytes: bound on memory beyond inputs, outputs and accumulators of the gradients.
        backend: see ``fastclip.ops.dispatch``.
    Returns:
        The loss in the accumulation dtype (float32, or float64 for float64), 0-d or ``[...]``.
        The mean over no rows at all is 0.
    Raises:
        TypeError, ValueError: dtypes, shapes or options that are not accepted, a mixture that wants
            a gradient or holds what is not 0 or more, or a workspace too small. IndexError:
            positions that are no cut of ngrams, n-grams that are no column or not among
            ``columns``, or columns that do not rise (what values are wrong is told on a CPU; on a
            GPU the device asserts). RuntimeError: on double backward.
    """
    rows = check_layer(hidden, weight, bias, reduction)
    row_weight = check_row_weight(row_weight, hidden, rows)
    ngrams = _check_ngrams(target, mixture, hidden)
    rows = pick_columns(rows, columns)
    ngrams = ngrams._replace(columns=places_of("ngrams", ngrams.columns, columns, -1))
    backend = resolve_for_graph(
        "ngram_cross_entropy", backend, rows.hidden, rows.weight, workspace_bytes
    )
    loss = _loss.differentiable(
        *rows,
        *ngrams,
        reduction,
        *rows.needs(),
        workspace_bytes,
        backend,
        row_weight,
    )[0]
    return loss.reshape(hidden.shape[:-1]) if reduction == "none" else loss


def _check_ngrams(
    target: tuple[Tensor, Tensor], mixture: Sequence[float] | Tensor, hidden: Tensor
) -> Ngrams:
    """The targets of the public function, their shapes and dtypes checked."""
    if not isinstance(target, tuple) or len(target) != 2:
        found = f"a tuple of {len(target)}" if isinstance(target, tuple) else type(target).__name__
        raise TypeError(f"target is {found}; accepted: (crow_indices, ngrams)")
    rows, columns = target
    check_row_starts(rows, hidden)
    check_index("ngrams", columns, hidden)
    if columns.ndim != 2 or not columns.shape[1]:
        raise ValueError(
            f"ngrams has shape {tuple(columns.shape)}; accepted: [positions, orders], 1 order or "
            "more"
        )
    return Ngrams(rows, columns, _check_mixture(mixture, columns.shape[1], hidden.device))


def _check_mixture(mixture: Sequence[float] | Tensor, orders: int, device: torch.device) -> Tensor:
    if isinstance(mixture, Tensor):
        refuse_gradient("mixture", mixture)
        if not mixture.is_floating_point() or mixture.device != device:
            raise TypeError(
                f"mixture is {mixture.dtype} on {mixture.device}; accepted: floating point on "
                f"{device}"
            )
    else:
        if not isinstance(mixture, Sequence) or not all(
            isinstance(weight, int | float) for weight in mixture
        ):
            raise TypeError(f"mixture={mixture!r}; accepted: a number for each order")
        mixture = torch.tensor(mixture, dtype=torch.float64)
    if mixture.shape != (orders,):
        raise ValueError(
            f"mixture has shape {tuple(mixture.shape)}; accepted: {(orders,)}, the orders of ngrams"
        )
    return mixture.to(device, statistics_dtype(device))
