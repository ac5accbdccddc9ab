"""The ranks that a loss works with, and the handshake before a call's first large collective."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm.handshake import REFUSED, Handshake, disagreement, idle_ranks, unequal_rows
from fastclip.comm.rank_rows import EXTRA, IMAGE, SCALE, TEXT, Shards, all_gather_single

_function_handshakes: dict[dist.ProcessGroup, Handshake] = {}


@dataclass(frozen=True)
class Peers:
    """A group of several ranks, and what they agreed upon.

    ``refusal`` is why this rank cannot go on, kept until the others can hear of it.
    """

    group: dist.ProcessGroup
    handshake: Handshake
    refusal: ValueError | None = None

    def check_and_agree(
        self, call: str, features: Tensor, prepare: Callable[[], tuple[tuple[Tensor, ...], str]]
    ) -> tuple[Shards, tuple[Tensor, ...], str]:
        """Check this rank's inputs, then agree with the others.

        Ranks exchange three int64: their rows, a digest of the call (operation, flags, dtype,
        width) and the gradients they want. Where they disagree, or one of them refused its inputs,
        every rank raises the same ValueError. ``Handshake`` says when they do so.

        Args:
            call: the operation and its flags, in words.
            features: any of the inputs; it says where tensors live.
            prepare: checks the inputs of this rank; returns a tuple of image rows, text rows, then
                scalars and extra texts that may want gradients, and constants; and the name of the
                backend, which ranks need not share.

        Returns:
            The shards, and both that ``prepare`` returned.

        Raises:
            ValueError: the same on every rank, where one refuses its inputs or they disagree.
        """
        # One function, for a call of it is made on every step: tests count those that lead to the
        # maths.
        group, agreed = self.group, self.handshake.agreed
        refusal: Exception | None = None
        try:
            if self.refusal is not None:
                raise self.refusal
            prepared, backend = prepare()
        except Exception as error:
            if agreed:  # the others do not listen
                raise
            device = features.device if isinstance(features, Tensor) else torch.device("cpu")
            rows, grad_flags, refusal = 0, REFUSED, error
        else:
            image, text, *others = prepared
            rows, grad_flags, device = image.shape[0], 0, image.device
            matrices: dict[str, None] = {}
            for tensor in prepared:
                if tensor.ndim == 2:
                    dtype = str(tensor.dtype).removeprefix("torch.")
                    matrices[f"{dtype} features of width {tensor.shape[1]}"] = None
            call = f"{call} on {' and '.join(matrices)}"
            if torch.is_grad_enabled():
                grad_flags = IMAGE * image.requires_grad | TEXT * text.requires_grad
                for other in others:
                    grad_flags |= (EXTRA if other.ndim == 2 else SCALE) * other.requires_grad
            known = agreed.get((group, rows, call)) if agreed else None
            if known and grad_flags in known:
                return known[grad_flags], prepared, backend
            if known is None and agreed and self.handshake.fixed:
                raise self.handshake.another_call(rows, call)

        digest = hashlib.blake2b(call.encode(), digest_size=8).digest()
        own = [[rows, int.from_bytes(digest, "little", signed=True), grad_flags]]
        table = torch.empty((dist.get_world_size(group), 3), dtype=torch.int64, device=device)
        all_gather_single(table, torch.tensor(own, device=device), group=group)
        all_rows, digests, all_flags = zip(*table.tolist(), strict=True)
        if max(all_flags) >= REFUSED or len(set(digests)) > 1:
            raise disagreement(group, call, refusal) from refusal
        if 0 in all_flags and any(all_flags):
            raise idle_ranks(all_flags)
        if self.handshake.shards == "equal" and len(set(all_rows)) > 1:
            raise unequal_rows(all_rows)
        rank = dist.get_rank(group)
        before, own_rows = sum(all_rows[:rank]), all_rows[rank]
        shards = Shards(
            group, all_rows, all_flags, rank, len(all_rows), sum(all_rows), before, own_rows
        )
        if self.handshake.shards == "equal":
            agreed.setdefault((group, rows, call), {})[grad_flags] = shards
        return shards, prepared, backend


def peers_of_module(
    group: dist.ProcessGroup | None, rank: int, world_size: int, handshake: Handshake
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
    return Peers(group, handshake, refusal)


def peers_of_function(group: dist.ProcessGroup | None, shards: str) -> Peers | None:
    """The peers of a function call; None where ``group`` is None or this process alone."""
    handshake = Handshake(shards, fixed=False)
    if group is None or dist.get_world_size(group) == 1:
        return None
    if dist.get_rank(group) < 0:
        raise ValueError("this process is no member of group; pass a group that holds it")
    if shards == "equal":
        handshake = _function_handshakes.setdefault(group, handshake)
    return Peers(group, handshake)
