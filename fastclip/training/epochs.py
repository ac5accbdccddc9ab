"""What happens before an epoch's first step: labels made of the set, parameters begun anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastclip.comm.division import Division
from fastclip.data.loaders.base import SetLoader
from fastclip.data.seeding import derived_seed
from fastclip.objectives.base import MicroBatch, Objective
from fastclip.training.lookahead import SLOW
from fastclip.training.steps import to_device

if TYPE_CHECKING:
    from fastclip.training.trainer import Trainer


def works_before_epochs(objective: Objective) -> bool:
    """Whether an objective does anything before an epoch, for which it needs the set in memory."""
    return type(objective).before_epoch is not Objective.before_epoch


def begin_epoch(trainer: Trainer, epoch: int) -> None:
    """Call ``before_epoch``, and give the parameters that it renews their new values."""
    objective = trainer.objective
    if not works_before_epochs(objective):
        return
    trainer.engine.eval()
    # The same draws on every rank, and in a run that is resumed at this epoch.
    torch.manual_seed(derived_seed(trainer.cfg.run.seed, epoch))

    def over_the_set(function: Callable[[MicroBatch], Tensor]) -> Tensor:
        loader, ranks = trainer.loader, trainer.ranks
        assert isinstance(loader, SetLoader), "the loader was built without in_set_order"
        division = Division.of(loader.num_records, ranks)
        rows = division.own[division.padded()] if len(division.own) else division.padded()
        with torch.no_grad(), trainer.autocast():
            found = [
                function(to_device(loader.records(part), ranks.device))
                for part in rows.split(trainer.micro_batch)
            ]
        return division.gather(torch.cat(found))

    renew(trainer.engine, trainer.optimizer, objective.before_epoch(epoch, over_the_set))


@torch.no_grad()
def renew(engine: Any, optimizer: Any, values: dict[str, Tensor]) -> None:
    """Set parameters of the engine's module by name; their moments start at zero again.

    ``values`` are the same on every rank. The count of steps, which parameters of a partition
    share, goes on.
    """
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    parameters = dict(engine.module.named_parameters())
    for name, value in values.items():
        parameter = parameters[name]
        value = value.to(engine.device, torch.float32)
        if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
            safe_set_full_fp32_param(parameter, value)
            for key in _moments(optimizer):
                start = value if key == SLOW else torch.zeros_like(value)
                safe_set_full_optimizer_state(parameter, start, key)
        else:
            stepped = _stepped(optimizer, parameter)
            stepped.copy_(value)
            for key, moment in _state(optimizer).get(stepped, {}).items():
                if torch.is_tensor(moment) and moment.shape == parameter.shape:
                    moment.copy_(value) if key == SLOW else moment.zero_()
        partitioned = [parameter] if hasattr(parameter, "ds_id") else []
        with deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0):
            parameter.copy_(value)


def _stepped(optimizer: Any, parameter: Tensor) -> Tensor:
    """What the wrapped optimizer steps for a parameter that is not partitioned.

    Without ZeRO DeepSpeed keeps an fp32 copy of every 16-bit weight and writes it over the weight
    after each step.
    """
    groups = getattr(optimizer, "fp16_groups", ()), getattr(optimizer, "fp32_groups", ())
    for weights, copies in zip(*groups, strict=False):
        for weight, copy in zip(weights, copies, strict=True):
            if weight is parameter:
                return copy
    return parameter


def _moments(optimizer: Any) -> list[str]:
    """Names of what the wrapped optimizer keeps for every entry of a partition."""
    found = {
        key
        for partition, state in _state(optimizer).items()
        for key, moment in state.items()
        if torch.is_tensor(moment) and moment.shape == partition.shape
    }
    return sorted(found)


def _state(optimizer: Any) -> dict[Tensor, dict[str, Any]]:
    """State of the optimizer that DeepSpeed's wraps, or of ``optimizer`` where none is wrapped."""
    return getattr(optimizer, "optimizer", optimizer).state
