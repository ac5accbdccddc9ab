"""InfoNCE: softmaxes over both sides of the logits, of each row among columns and the reverse."""

from fastclip.ops.infonce.operation import clip_loss as clip_loss
from fastclip.ops.infonce.operation import clip_loss_single as clip_loss_single
from fastclip.ops.infonce.operation import infonce_backward as infonce_backward
from fastclip.ops.infonce.operation import infonce_forward as infonce_forward
from fastclip.ops.infonce.operation import shifted as shifted
