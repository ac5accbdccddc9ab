"""What the operations of InfoNCE, and their backends, take.

``x [n, D]`` are rows, of which n may be 0, ``y [m, D]`` columns of the same dtype, ``scale`` is 0-d
in their accumulation dtype; the target of row i is column ``i + target_offset``.
``workspace_bytes`` bounds memory beyond inputs, outputs and accumulators, ``backend`` names who
computes.
"""

from typing import NamedTuple

from torch import Tensor


class InfonceForward(NamedTuple):
    """Arguments of ``infonce_forward``.

    ``keep``: keep the logits for the backward pass where they fit the workspace.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    target_offset: int
    keep: bool
    workspace_bytes: int
    backend: str


class InfonceBackward(NamedTuple):
    """Arguments of ``infonce_backward``.

    Attributes:
        row_lse: ``[n]`` float64.
        col_lse: ``[m]`` float64, over the rows of all ranks.
        target: ``[n]`` float64, the logits of targets as ``infonce_forward`` returned them.
        row_weight: ``[n]``, col_weight: ``[m]``, accumulation dtype.
        kept: as ``infonce_forward`` returned it.
        both_terms: True for the gradient of both terms in both outputs; False for x's from the row
            term alone and y's from the column term alone, which is what open_clip's ``local_loss``
            without ``gather_with_grad`` computes.
        need_x, need_y: an output not needed is an empty ``[0, D]`` and costs no product.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    row_lse: Tensor
    col_lse: Tensor
    target: Tensor
    row_weight: Tensor
    col_weight: Tensor
    kept: Tensor
    target_offset: int
    both_terms: bool
    need_x: bool
    need_y: bool
    workspace_bytes: int
    backend: str


class ClipLossCall(NamedTuple):
    """Arguments of the op ``clip_loss``: n image rows and their n text rows, and ``keep`` as in
    ``InfonceForward``. ``backend`` is a name: what is kept is of that backend, and another process
    that finds a compiled graph in a cache may choose otherwise."""

    image: Tensor
    text: Tensor
    scale: Tensor
    keep: bool
    workspace_bytes: int
    backend: str


class InfonceIdsForward(NamedTuple):
    """Arguments of ``infonce_ids_forward``: those of ``InfonceForward``, then ids.

    Attributes:
        row_ids: ``[n]`` int64. column_ids: ``[<= m]`` int64, of the first columns; later ones have
            none, and are negatives of every row.
        ignore: False where all pairs of one id are positives; True where all of them but the
            targets are left out of both softmaxes.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    target_offset: int
    keep: bool
    workspace_bytes: int
    backend: str
    row_ids: Tensor
    column_ids: Tensor
    ignore: bool


class InfonceIdsBackward(NamedTuple):
    """Arguments of ``infonce_ids_backward``: those of ``InfonceBackward``, then ids.

    Attributes:
        row_ids, column_ids, ignore: as in ``InfonceIdsForward``.
        row_share: ``[n]``, col_share: ``[columns with an id]``: the weight of each of a row's and a
            column's positives, its weight over their number; accumulation dtype.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    row_lse: Tensor
    col_lse: Tensor
    target: Tensor
    row_weight: Tensor
    col_weight: Tensor
    kept: Tensor
    target_offset: int
    both_terms: bool
    need_x: bool
    need_y: bool
    workspace_bytes: int
    backend: str
    row_ids: Tensor
    column_ids: Tensor
    row_share: Tensor
    col_share: Tensor
    ignore: bool


class ClipLossIdsCall(NamedTuple):
    """Arguments of the op ``clip_loss_ids``: those of ``ClipLossCall``, ``ids [n]`` or None with
    ``ignore`` as in ``InfonceIdsForward``, and ``extra [k, D]``, texts that only images meet."""

    image: Tensor
    text: Tensor
    scale: Tensor
    extra: Tensor | None
    ids: Tensor | None
    ignore: bool
    keep: bool
    workspace_bytes: int
    backend: str


# How many of the first fields of a pack with ids are those of the pack without.
PLAIN_FORWARD, PLAIN_BACKWARD = len(InfonceForward._fields), len(InfonceBackward._fields)
