"""What the objective's own scalars need beside DeepSpeed: gradients averaged and clipped."""

import torch
import torch.distributed as dist
from torch import nn


def average_gradients(module: nn.Module, world_size: int, group=None) -> None:
    """Mean over ranks of a replicated module's gradients, in the gradients' own dtype (fp32)."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if world_size == 1 or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat, group=group)
    flat /= world_size
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def clip_coefficient(norm: float | None, max_norm: float) -> float:
    """Factor by which gradients of global norm ``norm`` are scaled to at most ``max_norm``.

    1 where ``max_norm`` is 0 or the norm is not known.
    """
    if not max_norm or norm is None or norm <= max_norm:
        return 1.0
    return max_norm / (norm + 1e-6)
