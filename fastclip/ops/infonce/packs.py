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
