"""What the operations of the sigmoid loss, and their backends, take.

``scale`` and ``bias`` are 0-d in the accumulation dtype. ``chunk_rows`` rows are handled at a time,
0 for as many as the workspace allows. ``workspace_bytes`` bounds memory beyond inputs, outputs and
accumulators, ``backend`` names who computes.
"""

from typing import NamedTuple

from torch import Tensor


class SigmoidForward(NamedTuple):
    """Arguments of ``sigmoid_forward``.

    Attributes:
        x: ``[n, D]`` rows, n may be 0. y: ``[m, D]`` columns of the same dtype.
        target_offset: the one column with label +1 in row i is ``i + target_offset``; -1 where no
            column of this block has it. Others are -1, but for those of one id.
        need_x, need_y: which feature gradients to compute; the other is an empty ``[0, D]``.
        want_grad: compute the gradients of scale and bias, else they are 0.
        row_ids: ``[n]`` int64, column_ids: ``[<= m]`` int64, of the first columns, or None.
        ignore: False where the label of all pairs of one id is +1; True where all of them but the
            targets are left out.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    bias: Tensor
    target_offset: int
    need_x: bool
    need_y: bool
    want_grad: bool
    chunk_rows: int
    workspace_bytes: int
    backend: str
    row_ids: Tensor | None = None
    column_ids: Tensor | None = None
    ignore: bool = False


class SiglipLossCall(NamedTuple):
    """Arguments of the op ``siglip_loss``: n image rows and their n text rows, and which gradients
    to compute."""

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor
    need_image: bool
    need_text: bool
    want_grad: bool
    chunk_rows: int
    workspace_bytes: int
    backend: str


class SiglipLossIdsCall(NamedTuple):
    """Arguments of the op ``siglip_loss_ids``: those of ``SiglipLossCall``, ``ids [n]`` or None
    with ``ignore`` as in ``SigmoidForward``, and ``extra [k, D]``, texts that are negatives of all
    images. ``need_text`` is for both kinds of texts."""

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor
    extra: Tensor | None
    ids: Tensor | None
    ignore: bool
    need_image: bool
    need_text: bool
    want_grad: bool
    chunk_rows: int
    workspace_bytes: int
    backend: str
