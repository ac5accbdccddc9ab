"""Cross entropy of logits that arrive materialised, as those of a captioner's decoder do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastclip.ops.derivatives import differentiable
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES
from fastclip.ops.inputs import accumulation_dtype


class CaptionCrossEntropy(nn.Module):
    """``nn.CrossEntropyLoss(ignore_index)`` computed in fp32 from logits of any dtype.

    Keeps one number per token for the backward pass where log-softmax keeps another tensor of
    logits. ``forward(logits [B, V, ...] or [T, V], labels [B, ...] or [T])`` gives the mean over
    tokens whose label is not ``ignore_index``, in fp32 (fp64 for fp64 logits); of none at all it is
    NaN, with a gradient of 0.
    """

    def __init__(
        self, ignore_index: int = -100, workspace_bytes: int = DEFAULT_WORKSPACE_BYTES
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.workspace_bytes = workspace_bytes

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != labels.shape:
            raise ValueError(
                f"logits and labels have shapes {tuple(logits.shape)} and {tuple(labels.shape)}; "
                "accepted: one label per token"
            )
        tokens = logits.movedim(1, -1).reshape(-1, logits.shape[1])
        labels = labels.reshape(-1)
        total, _ = _caption_cross_entropy(tokens, labels, self.ignore_index, self.workspace_bytes)
        return total / (labels != self.ignore_index).sum()


@torch.library.custom_op("fastclip::caption_cross_entropy", mutates_args=())
def caption_cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int, workspace_bytes: int
) -> tuple[Tensor, Tensor]:
    """Sum of ``lse - logit of the label`` over tokens not ignored, and every token's lse ``[T]``.

    Args:
        logits: ``[T, V]``. labels: ``[T]``, int64.
    Raises ValueError for a label outside V, on a CPU; elsewhere that would wait for the device;
    and where not one token fits the workspace.
    """
    dtype = accumulation_dtype(logits.dtype)
    rows = _chunk_rows(logits, dtype, workspace_bytes)
    if labels.device.type == "cpu":
        found = labels[(labels != ignore_index) & ((labels < 0) | (labels >= logits.shape[1]))]
        if len(found):
            raise ValueError(
                f"labels holds {int(found[0])}; accepted: 0 to {logits.shape[1] - 1}, and "
                f"ignore_index={ignore_index}"
            )
    lse = logits.new_empty(logits.shape[0], dtype=dtype)
    total = logits.new_zeros((), dtype=torch.float64)
    for part, label, out in zip(
        logits.split(rows), labels.split(rows), lse.split(rows), strict=True
    ):
        part = part.to(dtype)
        torch.logsumexp(part, 1, out=out)
        out.masked_fill_(out == torch.inf, torch.nan)  # as log-softmax has it
        used = label != ignore_index
        target = part.gather(1, label.where(used, 0)[:, None])[:, 0]
        total += (out - target).where(used, 0).sum(dtype=torch.float64)
    return total.to(dtype), lse


@caption_cross_entropy.register_fake
def _(logits, labels, ignore_index, workspace_bytes):
    dtype = accumulation_dtype(logits.dtype)
    return logits.new_empty((), dtype=dtype), logits.new_empty(logits.shape[0], dtype=dtype)


@torch.library.custom_op("fastclip::caption_cross_entropy_backward", mutates_args=())
def caption_cross_entropy_backward(
    logits: Tensor,
    labels: Tensor,
    lse: Tensor,
    upstream: Tensor,
    ignore_index: int,
    workspace_bytes: int,
) -> Tensor:
    """``upstream (softmax - one-hot)`` per token not ignored, ``[T, V]`` in the logits' dtype."""
    grad = torch.empty_like(logits)
    rows = _chunk_rows(logits, lse.dtype, workspace_bytes)
    for part, label, part_lse, out in zip(
        logits.split(rows), labels.split(rows), lse.split(rows), grad.split(rows), strict=True
    ):
        used = label != ignore_index
        g = part.to(lse.dtype, copy=True).sub_(part_lse[:, None]).exp_()
        g.scatter_add_(1, label.where(used, 0)[:, None], -torch.ones_like(part_lse)[:, None])
        out.copy_(g.mul_(upstream.where(used, 0)[:, None]))
    return grad


@caption_cross_entropy_backward.register_fake
def _(logits, labels, lse, upstream, ignore_index, workspace_bytes):
    return torch.empty_like(logits)


def _chunk_rows(logits: Tensor, dtype: torch.dtype, workspace_bytes: int) -> int:
    """How many tokens to work on at a time."""
    # Two chunks are alive at a time, the logits upcast and what is made of them, and a few numbers
    # a token.
    vocabulary = logits.shape[1]
    token_bytes = 2 * dtype.itemsize * vocabulary + 64
    if token_bytes > workspace_bytes:
        raise ValueError(
            f"workspace_bytes={workspace_bytes} is too small: one token of {vocabulary} logits at "
            f"a time needs {token_bytes} bytes"
        )
    return workspace_bytes // token_bytes


def _context(ctx, inputs, output):
    logits, labels, ctx.ignore_index, ctx.workspace_bytes = inputs
    ctx.save_for_backward(logits, labels, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, upstream, _):
    logits, labels, lse = ctx.saved_tensors
    grad = caption_cross_entropy_backward(
        logits, labels, lse, upstream, ctx.ignore_index, ctx.workspace_bytes
    )
    return grad, None, None, None


_caption_cross_entropy = differentiable(caption_cross_entropy, _backward, _context)
