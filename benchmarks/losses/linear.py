"""How implementations of the losses of a linear layer's output are called."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.losses.adapters import Step, differentiated
from benchmarks.losses.problems import Problem

_QUACK_ROWS = 4096


def our_linear_cross_entropy(problem: Problem, **options) -> Step:
    from fastclip.loss import linear_cross_entropy

    return differentiated(
        lambda hidden, weight, target: linear_cross_entropy(hidden, weight, target, **options)
    )


def our_multi_target_cross_entropy(problem: Problem, **options) -> Step:
    from fastclip.loss import multi_target_cross_entropy

    return differentiated(
        lambda hidden, weight, starts, columns, shares: multi_target_cross_entropy(
            hidden, weight, (starts, columns, shares), **options
        )
    )


def our_linear_sigmoid_cross_entropy(problem: Problem, **options) -> Step:
    from fastclip.loss import linear_sigmoid_cross_entropy

    return differentiated(
        lambda hidden, weight, starts, columns, **weights: linear_sigmoid_cross_entropy(
            hidden, weight, (starts, columns), **weights, **options
        )
    )


def torch_linear_cross_entropy(problem: Problem, compiled: bool = False) -> Step:
    def loss(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight), target)

    return differentiated(_compiled(loss) if compiled else loss)


def _compiled(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    return torch.compile(loss, dynamic=False)


def _rows_of(starts: Tensor, columns: Tensor) -> Tensor:
    """The row of each entry of a CSR target."""
    # With its size said, nothing waits for the device.
    return torch.repeat_interleave(starts.diff(), output_size=len(columns))


def torch_multi_target_cross_entropy(problem: Problem, compiled: bool = False) -> Step:
    """The named entries of a log softmax: faster and smaller than ``F.cross_entropy`` with dense
    probabilities for targets."""

    def loss(
        hidden: Tensor, weight: Tensor, starts: Tensor, columns: Tensor, shares: Tensor
    ) -> Tensor:
        log_p = F.log_softmax(F.linear(hidden, weight), 1)
        named = log_p[_rows_of(starts, columns), columns]
        return -(shares * named).sum() / len(hidden)

    return differentiated(_compiled(loss) if compiled else loss)


def torch_linear_sigmoid_cross_entropy(problem: Problem, compiled: bool = False) -> Step:
    """Torch's function, with the dense labels that it needs."""

    def loss(
        hidden: Tensor,
        weight: Tensor,
        starts: Tensor,
        columns: Tensor,
        positive_weight: Tensor,
        negative_weight: Tensor,
    ) -> Tensor:
        z = F.linear(hidden, weight)
        labels = torch.zeros_like(z).index_put_(
            (_rows_of(starts, columns), columns), z.new_ones(())
        )
        # Of one dtype with the logits, or they become float32 on the way.
        over = (positive_weight / negative_weight).to(z.dtype)
        each = negative_weight.to(z.dtype)
        return F.binary_cross_entropy_with_logits(z, labels, weight=each, pos_weight=over)

    return differentiated(_compiled(loss) if compiled else loss)


def torch_sparse_sigmoid_cross_entropy(problem: Problem, compiled: bool = False) -> Step:
    """All entries as negatives, and then the named ones as what they are: what to write where
    labels are few."""

    def loss(
        hidden: Tensor,
        weight: Tensor,
        starts: Tensor,
        columns: Tensor,
        positive_weight: Tensor,
        negative_weight: Tensor,
    ) -> Tensor:
        z = F.linear(hidden, weight)
        named = z[_rows_of(starts, columns), columns]
        as_negatives = (F.softplus(z).sum(0) * negative_weight).sum()
        as_positives = positive_weight[columns] * F.softplus(-named)
        too_much = negative_weight[columns] * F.softplus(named)
        return (as_negatives + (as_positives - too_much).sum()) / z.numel()

    return differentiated(_compiled(loss) if compiled else loss)


def torch_chunked_linear_cross_entropy(problem: Problem) -> Step:
    options = torch.nn.LinearCrossEntropyOptions()
    return differentiated(
        lambda hidden, weight, target: F.linear_cross_entropy(
            hidden, weight, target, options=options
        )
    )


def liger(problem: Problem, softmax: str = "nvidia-triton") -> Step:
    """Torch's products, in chunks, around a softmax kernel of the given kind, which Liger's own
    module would choose by what is installed."""
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    # No bias, class weights, z-loss, smoothing or cap; the mean; no further outputs.
    plain = (None, None, -100, 0.0, 0.0, "mean", None, False, None, False, False, False)
    return differentiated(
        lambda hidden, weight, target: LigerFusedLinearCrossEntropyFunction.apply(
            hidden, weight, target, *plain, softmax
        )[0]
    )


def liger_cute(problem: Problem) -> Step:
    """All three products and the softmax in its own kernels for compute capability 9.0.

    It refuses rows that are no multiple of 128 and vocabularies that are none of 256.
    """
    from liger_kernel.ops.cutedsl.ops.fused_linear_cross_entropy_sm90 import (
        liger_fused_linear_cross_entropy_sm90,
    )

    return differentiated(
        lambda hidden, weight, target: liger_fused_linear_cross_entropy_sm90(hidden, weight, target)
    )


def cut_cross_entropy(problem: Problem) -> Step:
    """Its exact mode: without a filter that drops small entries of the softmax."""
    from cut_cross_entropy import linear_cross_entropy

    return differentiated(
        lambda hidden, weight, target: linear_cross_entropy(
            hidden, weight, target, filter_eps=None, impl="cce"
        )
    )


def quack(problem: Problem) -> Step:
    """Chunks of 4,096 rows, its default, or what a smaller problem has."""
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    rows = min(_QUACK_ROWS, problem.rows)
    return differentiated(
        lambda hidden, weight, target: chunked_linear_cross_entropy(
            hidden, weight, target, chunk_size=rows
        )
    )
