"""What the operations of distillation, and their backends, take.

``x [n, D]`` are the student's rows, of which n may be 0, ``y [m, D]`` its columns of the same
dtype, ``tx [n, D']`` and ``ty [m, D']`` the teacher's; ``scale`` and ``tscale`` are 0-d in x's
accumulation dtype. The target of row i is column ``i + target_offset``. ``workspace_bytes`` bounds
memory beyond inputs, outputs and accumulators, ``backend`` names who computes.
"""

from typing import NamedTuple

from torch import Tensor


class DistillForward(NamedTuple):
    """Arguments of ``distill_forward``."""

    x: Tensor
    y: Tensor
    scale: Tensor
    tx: Tensor
    ty: Tensor
    tscale: Tensor
    target_offset: int
    workspace_bytes: int
    backend: str


class DistillBackward(NamedTuple):
    """Arguments of ``distill_backward``.

    Statistics are those of ``distill_forward``, column ones over the rows of all ranks; weights
    ``[n]`` and ``[m]`` are in the accumulation dtype; the flags are ``InfonceBackward``'s.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    tx: Tensor
    ty: Tensor
    tscale: Tensor
    row_lse: Tensor
    col_lse: Tensor
    t_row_lse: Tensor
    t_col_lse: Tensor
    row_weight: Tensor
    col_weight: Tensor
    row_distill_weight: Tensor
    col_distill_weight: Tensor
    target_offset: int
    both_terms: bool
    need_x: bool
    need_y: bool
    workspace_bytes: int
    backend: str


class DistillClipLossCall(NamedTuple):
    """Arguments of the op ``distill_clip_loss``: n pairs of the student and of the teacher."""

    image: Tensor
    text: Tensor
    scale: Tensor
    teacher_image: Tensor
    teacher_text: Tensor
    teacher_scale: Tensor
    workspace_bytes: int
    backend: str
