"""Optimizers by name, on parameter groups with rates and decay of their own."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fastclip.training.lookahead import Lookahead
from fastclip.training.options.optim import OptimConfig
from fastclip.training.schedules import Schedule


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and kernels, as against gains, biases and scalars."""
    return parameter.ndim > 1


def split_decay(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    *,
    lr: float | None = None,
    name: str = "model",
    decays: Callable[[str, nn.Parameter], bool] = is_matrix,
) -> list[dict[str, Any]]:
    """Parameter groups of one part of a model: with weight decay, then without.

    Args:
        named_parameters: as :meth:`torch.nn.Module.named_parameters` yields them; frozen ones are
            left out.
        weight_decay: of those that ``decays(name, parameter)`` says.
        lr: the part's peak rate, or None for the run's ``--lr``.
        name: the part's; the second group's gets `` without decay``.

    Returns:
        One or two groups, none of them empty.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter_name, parameter in named_parameters:
        if parameter.requires_grad:
            (decayed if decays(parameter_name, parameter) else plain).append(parameter)
    rate = {} if lr is None else {"lr": lr}
    groups: list[dict[str, Any]] = [
        {"name": name, "params": decayed, "weight_decay": weight_decay, **rate},
        {"name": f"{name} without decay", "params": plain, "weight_decay": 0.0, **rate},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(groups: Iterable[dict[str, Any]], options: OptimConfig) -> Optimizer:
    """The optimizer that ``options`` name, with Lookahead round it where they ask for it.

    Args:
        groups: each with ``params`` and, where they differ from the run's, ``lr`` (the peak rate)
            and ``weight_decay``. ``name`` and other keys are kept.
        options: already checked.

    A group's peak rate stays in its ``initial_lr``, from which :func:`set_learning_rate` computes
    ``lr``. Decay is decoupled with AdamW (Loshchilov and Hutter 2017), and part of the gradient
    with SGD.
    """
    groups = [{"lr": options.lr, "weight_decay": options.wd, **group} for group in groups]
    for group in groups:
        group["initial_lr"] = group["lr"]
    optimizer: Optimizer
    if options.opt == "adamw":
        betas = (options.beta1, options.beta2)
        optimizer = torch.optim.AdamW(
            groups, lr=options.lr, betas=betas, eps=options.eps, fused=True
        )
    else:
        optimizer = torch.optim.SGD(
            groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov
        )
    if options.lookahead_k:
        optimizer = Lookahead(optimizer, options.lookahead_k, options.lookahead_alpha)
    return optimizer


def set_learning_rate(optimizer: Optimizer, schedule: Schedule, step: int) -> None:
    """Give every group the rate of optimizer step ``step`` (from 0)."""
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(group["initial_lr"], step)


@contextmanager
def without_initial_step(optimizer: Optimizer) -> Iterator[None]:
    """Within, ``optimizer.step`` does nothing: for the time of ``deepspeed.initialize``.

    Its optimizers for 16-bit weights without ZeRO (``FP16_Optimizer`` and
    ``FP16_UnfusedOptimizer``, 0.19.6 to 0.19.8) take a step on zero gradients, to have the
    optimizer's state allocated. That step would decay the weights, count in AdamW's bias correction
    and in Lookahead's steps, and leave the decay in SGD's momentum. Since it is not taken, nothing
    of it has to be undone, at any stage and precision; the first real step allocates the state.
    """
    vars(optimizer)["step"] = lambda closure=None: None
    try:
        yield
    finally:
        del vars(optimizer)["step"]


@contextmanager
def keep_settings(optimizer: Optimizer) -> Iterator[None]:
    """Within, a checkpoint is loaded: afterwards rates, decay and the like are this run's again.

    torch's optimizers take them from the checkpoint, so that flags changed for a resumed run would
    have no effect.
    """
    settings = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    yield
    for group, ours in zip(optimizer.param_groups, settings, strict=True):
        group.update(ours)
