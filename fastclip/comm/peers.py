"""The ranks that a loss works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm.agreement import Agreement
from fastclip.comm.shards import IMAGE, SCALE, TEXT, Shards

_function_agreements: dict[dist.ProcessGroup, Agreement] = {}


@dataclass(frozen=True)
class Peers:
    """A group of several ranks, and what they agreed upon.

    ``refusal`` is why this rank cannot go on, kept until the others can hear of it.
    """

    group: dist.ProcessGroup
    agreement: Agreement
    refusal: ValueError | None = None

    def meet(
        self, call: str, features: Tensor, prepare: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Shards, tuple[Tensor, ...]]:
        """Check this rank's inputs, then agree with the others.

        Args:
            call: the operation and its flags, in words.
            features: any of the inputs; it says where tensors live.
            prepare: checks the inputs of this rank; returns image rows, text rows, then scalars
                that may want gradients and constants.

        Returns:
            The shards and what ``prepare`` returned.

        Raises:
            ValueError: the same on every rank, where one refuses its inputs or they disagree.
        """
        device = features.device if isinstance(features, Tensor) else torch.device("cpu")
        try:
            if self.refusal is not None:
                raise self.refusal
            prepared = prepare()
        except Exception as error:
            raise self.agreement.refuse(self.group, call, device, error) from error
        image, text, *others = prepared
        wants = 0
        if torch.is_grad_enabled():
            wants = IMAGE * image.requires_grad | TEXT * text.requires_grad
            wants |= SCALE * any(other.requires_grad for other in others)
        matrices = dict.fromkeys(
            f"{str(t.dtype).removeprefix('torch.')} features of width {t.shape[1]}"
            for t in prepared
            if t.ndim == 2
        )
        call = f"{call} on {' and '.join(matrices)}"
        shards = self.agreement.reach(self.group, image.shape[0], call, wants, image.device)
        return shards, prepared


def peers_of_module(
    group: dist.ProcessGroup | None, rank: int, world_size: int, agreement: Agreement
) -> Peers | None:
    """The peers of a loss built with open_clip's ``rank`` and ``world_size``.

    None where it works alone: ``world_size=1``, whatever process groups exist.
    """
    if world_size == 1 and group is None:
        return None
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            f"world_size is {world_size}, but torch.distributed is not initialised; call "
            "torch.distributed.init_process_group first, or leave world_size at 1"
        )
    group = group or dist.group.WORLD
    assert group is not None
    found = dist.get_rank(group), dist.get_world_size(group)
    if found[0] < 0:
        raise ValueError("this process is no member of group; pass a group that holds it")
    refusal = None
    if found != (rank, world_size):
        refusal = ValueError(
            f"the loss was built for rank {rank} of {world_size}, but its process group has this "
            f"process as rank {found[0]} of {found[1]}; pass rank and world_size of the group"
        )
    if found[1] == 1:
        if refusal is not None:
            raise refusal
        return None
    return Peers(group, agreement, refusal)


def peers_of_function(group: dist.ProcessGroup | None, shards: str) -> Peers | None:
    """The peers of a function call; None where ``group`` is None or this process alone."""
    agreement = Agreement(shards, fixed=False)
    if group is None or dist.get_world_size(group) == 1:
        return None
    if dist.get_rank(group) < 0:
        raise ValueError("this process is no member of group; pass a group that holds it")
    if shards == "equal":
        agreement = _function_agreements.setdefault(group, agreement)
    return Peers(group, agreement)
