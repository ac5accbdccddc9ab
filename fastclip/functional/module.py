"""What the contrastive modules of ``fastclip.loss`` share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastclip.comm import Handshake, Peers, peers_of_module
from fastclip.functional.settings import ComputeOptions, warn_once
from fastclip.ops.inputs import SAME

Overridable = tuple[Callable[..., Any], ...]


class ContrastiveLoss(nn.Module):
    """A contrastive loss: its place among the ranks, and what its subclasses override."""

    # Methods that materialise logits or labels; an override of one is gone through.
    _materialising: ClassVar[Overridable] = ()

    def __init__(
        self,
        cache_labels: bool,
        rank: int,
        world_size: int,
        group: dist.ProcessGroup | None,
        shards: str,
        options: ComputeOptions,
    ) -> None:
        super().__init__()
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.prev_num_logits = 0
        self.labels: dict[torch.device, Tensor] = {}
        self.group = group
        self.handshake = Handshake(shards)
        self.options = options

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        # A process group cannot be copied: the copy speaks to the same one.
        memo[id(self.group)] = self.group
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def _peers(self) -> Peers | None:
        peers = peers_of_module(self.group, self.rank, self.world_size, self.handshake)
        if peers is not None:
            key = self.group or dist.group.WORLD, self.rank, self.world_size
            self.handshake.peers = key, peers
        return peers

    def _overridden(self) -> bool:
        names = [
            original.__name__
            for original in self._materialising
            if original.__name__ in self.__dict__
            or getattr(type(self), original.__name__) is not original
        ]
        if names:
            warn_once(
                f"{type(self).__name__} overrides {', '.join(names)}: the loss materialises the "
                "logits to go through the override"
            )
        return bool(names)

    def _no_ids(self, same: str) -> ValueError:
        """What an override raises that knows neither ids nor extra texts."""
        if same not in SAME:
            return ValueError(f"same={same!r}; accepted: {', '.join(SAME)}")
        return ValueError(
            f"{type(self).__name__} overrides a method that makes logits or labels, and takes no "
            "ids and no extra_texts; accepted: those of a loss without overrides"
        )


def refuse_horovod(use_horovod: bool) -> None:
    if use_horovod:
        raise ValueError("use_horovod=True; accepted: False, with torch.distributed in its place")
