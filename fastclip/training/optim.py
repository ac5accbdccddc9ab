"""Parameter groups, learning-rate schedule and the update of the objective's own scalars."""

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn

from fastclip.training.config import TrainConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: weight decay for matrices and kernels, none for gains, biases and scalars."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decay if parameter.ndim > 1 else plain).append(parameter)
    groups: list[dict] = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(groups: Iterable, cfg: TrainConfig) -> torch.optim.AdamW:
    """torch's AdamW with the run's hyper-parameters (decay comes from the groups)."""
    betas = (cfg.beta1, cfg.beta2)
    return torch.optim.AdamW(
        groups, lr=cfg.lr, betas=betas, eps=cfg.eps, weight_decay=0.0, fused=True
    )


def learning_rate(cfg: TrainConfig, step: int, total_steps: int) -> float:
    """Rate of optimiser step ``step`` (from 0): linear warm-up, then cosine to 0 or constant."""
    if step < cfg.warmup:
        return cfg.lr * (step + 1) / cfg.warmup
    if cfg.lr_scheduler == "const":
        return cfg.lr
    progress = (step - cfg.warmup) / max(1, total_steps - cfg.warmup)
    return 0.5 * cfg.lr * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def forget_initial_step(optimizer) -> None:
    """Undo the step on zero gradients by which DeepSpeed (0.19.8) makes room for AdamW's moments.

    In 16 bits at stage 0 (``FP16_UnfusedOptimizer``) that step stays: it decays the weights and
    counts in the bias correction, so that the first real step is half as long.
    """
    if not hasattr(optimizer, "fp32_groups"):
        return
    for weights, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
        for weight, master in zip(weights, masters, strict=True):
            master.copy_(weight)
    optimizer.optimizer.state.clear()


def average_gradients(module: nn.Module, world_size: int, group=None) -> None:
    """Mean over ranks of a replicated module's gradients, in the gradients' own dtype (fp32)."""
    if world_size == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat, group=group)
    flat /= world_size
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def clip_coefficient(norm: float | None, max_norm: float) -> float:
    """Factor by which gradients of global norm ``norm`` are scaled to at most ``max_norm``."""
    if not max_norm or norm is None or norm <= max_norm:
        return 1.0
    return max_norm / (norm + 1e-6)
