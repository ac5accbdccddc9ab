"""InfoNCE with distillation from a teacher's similarities, in one pass over both."""

from fastclip.ops.distill.operation import check_teacher as check_teacher
from fastclip.ops.distill.operation import distill_backward as distill_backward
from fastclip.ops.distill.operation import distill_clip_loss as distill_clip_loss
from fastclip.ops.distill.operation import distill_clip_loss_single as distill_clip_loss_single
from fastclip.ops.distill.operation import distill_forward as distill_forward
