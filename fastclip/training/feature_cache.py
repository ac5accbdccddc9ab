"""Contrastive steps at any batch size: the feature cache over DeepSpeed's engine.

A contrastive loss sees the whole batch at once, so accumulating it over micro-batches changes it.
Following GradCache (Gao et al., 2021, arXiv 2101.06983): embed every micro-batch without a graph,
take the loss once on all features, then run each micro-batch again with the same random state and
backpropagate its slice of the features' gradients.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Features = tuple[Tensor, ...]


def step_gradients(
    engine: Any,
    micro_batches: Sequence[Any],
    embed: Callable[[Any], Features],
    loss_fn: Callable[..., dict[str, Tensor]],
    before_backward: Callable[[dict[str, Tensor]], None],
) -> dict[str, Tensor]:
    """Accumulate the gradients of one optimiser step; ``engine.step()`` may follow.

    ``embed(micro_batch)`` moves one micro-batch to the device and runs ``engine`` on it, returning
    features ``[b, D]`` each. ``loss_fn(*features)`` gets the features of the whole local batch
    ``[n, D]`` as leaves and returns named losses whose sum is minimised; gradients of its own
    parameters are left in their ``.grad``, free of any loss scale. ``before_backward(losses)`` may
    raise to stop the step before a parameter's gradient is touched. With one micro-batch there is
    one forward pass and no replay.

    Returns the losses, detached.
    """
    cached = len(micro_batches) > 1
    states: list[RandomState] = []
    outputs: list[Features] = []
    with torch.set_grad_enabled(not cached), keep_batchnorm(engine, active=cached):
        for micro_batch in micro_batches:
            states.append(RandomState(engine.device))
            outputs.append(embed(micro_batch))
    after = RandomState(engine.device)

    columns = list(zip(*outputs, strict=True))
    if cached:
        outputs.clear()
    losses, gradients = _loss_gradients(columns, loss_fn, before_backward)

    start = 0
    for index, micro_batch in enumerate(micro_batches):
        engine.set_gradient_accumulation_boundary(index == len(micro_batches) - 1)
        if cached:
            states[index].restore()
            features = embed(micro_batch)
        else:
            features = outputs[0]
        stop = start + features[0].shape[0]
        surrogate = inner_product(features, [g[start:stop] for g in gradients])
        engine.backward(surrogate * unseen_loss_scale(engine), scale_wrt_gas=False)
        start = stop
    after.restore()
    return losses


def unseen_loss_scale(engine: Any) -> float:
    """fp16's loss scale at stage 0, where DeepSpeed (0.19.8) leaves it to its user; else 1.

    There ``engine.backward`` forgets it, the step divides gradients by it all the same, and the
    norm that the engine tells has it as a factor.
    """
    config = getattr(getattr(engine, "optimizer", None), "loss_scale_config", None)
    return 1.0 if config is None else float(config.cur_scale)


def _loss_gradients(
    columns: list[Features],
    loss_fn: Callable[..., dict[str, Tensor]],
    before_backward: Callable[[dict[str, Tensor]], None],
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses, detached, and the gradients of every tower's concatenated features.

    Empties ``columns`` as it goes and keeps no feature alive: at a large batch each copy counts.
    """
    leaves = []
    while columns:
        leaves.append(as_leaf(torch.cat(columns.pop(0))))
    losses = loss_fn(*leaves)
    before_backward(losses)
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def as_leaf(features: Tensor) -> Tensor:
    """Features to take the loss on: detached, and fp16 widened to fp32.

    A feature's gradient is near 1/n: in fp16 it would be flushed to zero before DeepSpeed's loss
    scale could save it.
    """
    wide = features.float() if features.dtype is torch.float16 else features
    return wide.detach().requires_grad_()


def inner_product(features: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """``sum_k <features_k, gradients_k>`` in at least fp32, whose gradient is ``gradients``."""
    terms = []
    for feature, gradient in zip(features, gradients, strict=True):
        wide = torch.promote_types(feature.dtype, torch.float32)
        terms.append((feature.to(wide) * gradient.to(wide)).sum())
    return torch.stack(terms).sum()


class RandomState:
    """torch's random state of the CPU and of one device, taken when built."""

    def __init__(self, device: torch.device):
        self.device = torch.device(device)
        self.cpu = torch.get_rng_state()
        self.on_device = None
        if self.device.type != "cpu":
            self.on_device = torch.get_device_module(self.device).get_rng_state(self.device)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.on_device is not None:
            torch.get_device_module(self.device).set_rng_state(self.on_device, self.device)


@contextmanager
def keep_batchnorm(module: nn.Module, active: bool = True) -> Iterator[None]:
    """Leave BatchNorm's running statistics as they were, in whatever mode the module runs.

    Statistics of the batch are still used to normalise; only the buffers' update is undone, so
    that a replayed micro-batch moves them once.
    """
    kept = []
    for child in module.modules() if active else ():
        if isinstance(child, nn.modules.batchnorm._NormBase):
            for name, buffer in child.named_buffers(recurse=False):
                kept.append((child, name, buffer.clone()))
    try:
        yield
    finally:
        with torch.no_grad():
            for child, name, copy in kept:
                # By name: a forward pass may put another tensor in a buffer's place.
                getattr(child, name).copy_(copy)
