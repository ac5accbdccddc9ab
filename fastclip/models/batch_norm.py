"""Keep BatchNorm right where training around it is not plain: checkpointing and 16-bit casts."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def guard_batch_norms(module: nn.Module) -> None:
    """Make every BatchNorm below ``module`` safe under activation checkpointing and DeepSpeed.

    - A recomputation in the backward pass normalizes by the batch's statistics as the first pass
      did, but leaves the running ones alone: they move once a batch.
    - Running statistics follow a 16-bit cast of the weights, as under ``Module.bfloat16()``;
      DeepSpeed (0.19.8) casts parameters alone, which torch's batch_norm refuses.
    """
    for norm in module.modules():
        if isinstance(norm, _BatchNorm) and norm.track_running_stats:
            norm.register_forward_pre_hook(_before)
            # Checkpointing leaves a recomputation early by an exception: restore even so.
            norm.register_forward_hook(_after, always_call=True)


def _before(norm: _BatchNorm, inputs: Any) -> None:
    if norm.weight is not None:
        for name in _STATISTICS[:2]:
            setattr(norm, name, getattr(norm, name).to(norm.weight.dtype))
    if torch._C._current_graph_task_id() != -1:  # inside a backward pass: a recomputation
        held = {name: getattr(norm, name) for name in _STATISTICS}
        norm.__dict__["_held"] = held
        # Copies, not None: the recomputation must save as many tensors as the first pass did.
        for name, statistic in held.items():
            setattr(norm, name, statistic.clone())


def _after(norm: _BatchNorm, inputs: Any, output: Any) -> None:
    for name, statistic in norm.__dict__.pop("_held", {}).items():
        setattr(norm, name, statistic)
