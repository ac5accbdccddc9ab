"""SigLIP's sigmoid loss: every pair of a row and a column is one binary decision."""

from fastclip.ops.sigmoid.ids_operation import siglip_loss_ids as siglip_loss_ids
from fastclip.ops.sigmoid.ids_operation import siglip_loss_ids_single as siglip_loss_ids_single
from fastclip.ops.sigmoid.operation import siglip_loss as siglip_loss
from fastclip.ops.sigmoid.operation import siglip_loss_single as siglip_loss_single
from fastclip.ops.sigmoid.operation import sigmoid_forward as sigmoid_forward
