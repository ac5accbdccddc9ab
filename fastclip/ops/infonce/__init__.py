"""InfoNCE: softmaxes over both sides of the logits, of each row among columns and the reverse."""

from fastclip.ops.infonce.ids_operation import block_backward as block_backward
from fastclip.ops.infonce.ids_operation import clip_loss_ids as clip_loss_ids
from fastclip.ops.infonce.ids_operation import clip_loss_ids_single as clip_loss_ids_single
from fastclip.ops.infonce.ids_operation import infonce_ids_backward as infonce_ids_backward
from fastclip.ops.infonce.ids_operation import infonce_ids_forward as infonce_ids_forward
from fastclip.ops.infonce.ids_operation import positives as positives
from fastclip.ops.infonce.ids_operation import with_extra as with_extra
from fastclip.ops.infonce.operation import clip_loss as clip_loss
from fastclip.ops.infonce.operation import clip_loss_single as clip_loss_single
from fastclip.ops.infonce.operation import infonce_backward as infonce_backward
from fastclip.ops.infonce.operation import infonce_forward as infonce_forward
from fastclip.ops.infonce.operation import shifted as shifted
