"""What happens before an epoch's first step: labels made of the set, parameters begun anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastclip.comm.division import Division
from fastclip.data.in_memory import InMemoryLoader
from fastclip.objectives.base import MicroBatch, Objective
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

    def over_the_set(function: Callable[[MicroBatch], Tensor]) -> Tensor:
        loader, ranks = trainer.loader, trainer.ranks
        assert isinstance(loader, InMemoryLoader), "the loader was built without in_set_order"
        division = Division.of(len(loader.decoded), ranks)
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
                start = value if key == "slow_weights" else torch.zeros_like(value)
                safe_set_full_optimizer_state(parameter, start, key)
        else:
            for key, moment in optimizer.state.get(parameter, {}).items():
                if torch.is_tensor(moment) and moment.shape == parameter.shape:
                    moment.copy_(value) if key == "slow_weights" else moment.zero_()
        partitioned = [parameter] if hasattr(parameter, "ds_id") else []
        with deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0):
            parameter.copy_(value)


def _moments(optimizer: Any) -> set[str]:
    """Names of what the wrapped optimizer keeps for every entry of a partition."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return {
        key
        for partition, state in inner.state.items()
        for key, moment in state.items()
        if torch.is_tensor(moment) and moment.shape == partition.shape
    }
