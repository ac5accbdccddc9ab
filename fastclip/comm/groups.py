"""Which process group a loss speaks to."""

from __future__ import annotations

import torch.distributed as dist


def find_group(
    group: dist.ProcessGroup | None, rank: int, world_size: int
) -> tuple[dist.ProcessGroup | None, ValueError | None]:
    """The group that a loss built with ``rank`` and ``world_size`` speaks to, None for none.

    Where the arguments do not fit the group, the second value says so: the caller hands it to
    ``Agreement.reach``, since the other ranks must hear of it.
    """
    if world_size == 1 and group is None:
        return None, None
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            f"world_size is {world_size}, but torch.distributed is not initialised; call "
            "torch.distributed.init_process_group first or leave world_size at 1"
        )
    group = group or dist.group.WORLD
    real_rank, real_size = dist.get_rank(group), dist.get_world_size(group)
    if real_rank < 0:
        raise ValueError("group does not hold this process; pass a group that does")
    if (real_rank, real_size) != (rank, world_size):
        return group, ValueError(
            f"rank is {rank} and world_size {world_size}, but the process group has this process "
            f"as rank {real_rank} of {real_size}; pass those"
        )
    return (group if real_size > 1 else None), None


