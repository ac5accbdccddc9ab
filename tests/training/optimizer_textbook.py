"""Optimizers as their papers write them, in fp64 and one weight at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from fastclip.training.options.optim import OptimConfig


def train(
    start: dict[str, Tensor],
    gradient: Callable[[str, Tensor, int], Tensor],
    options: OptimConfig,
    *,
    decay: dict[str, float],
    rate: Callable[[str, int], float],
    steps: int,
) -> list[dict[str, Tensor]]:
    """All weights after each step; ``gradient(name, weight, step)`` and ``rate(name, step)``."""
    fast = {name: weight.double().clone() for name, weight in start.items()}
    slow = {name: weight.clone() for name, weight in fast.items()}
    update = {"adamw": _adamw, "sgd": _sgd}[options.opt]
    memory: dict[str, dict[str, Tensor]] = {name: {} for name in fast}
    history = []
    for step in range(steps):
        for name, weight in fast.items():
            g = gradient(name, weight, step)
            lr = rate(name, step)
            fast[name] = update(weight, g, memory[name], lr, decay[name], step + 1, options)
        if options.lookahead_k and (step + 1) % options.lookahead_k == 0:
            alpha = options.lookahead_alpha
            slow = {name: slow[name] + alpha * (fast[name] - slow[name]) for name in slow}
            fast = dict(slow)
        history.append({name: weight.clone() for name, weight in fast.items()})
    return history


def _adamw(w, g, memory, lr, decay, t, options):
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization", algorithm 2."""
    zero = torch.zeros_like(w)
    m = options.beta1 * memory.get("m", zero) + (1 - options.beta1) * g
    v = options.beta2 * memory.get("v", zero) + (1 - options.beta2) * g**2
    memory |= {"m": m, "v": v}
    direction = (m / (1 - options.beta1**t)) / ((v / (1 - options.beta2**t)).sqrt() + options.eps)
    return w - lr * decay * w - lr * direction


def _sgd(w, g, memory, lr, decay, t, options):
    """Sutskever et al. 2013 in torch's convention: the rate multiplies the whole velocity."""
    g = g + decay * w
    velocity = memory["velocity"] = options.momentum * memory.get("velocity", 0 * w) + g
    return w - lr * (g + options.momentum * velocity if options.nesterov else velocity)
