"""Starting the process group: under the deepspeed launcher, torchrun or plain python."""

import contextlib
import logging
import os
import sys
import time
import warnings
from dataclasses import dataclass

import torch
import torch.distributed as dist

from fastclip.errors import UserError


@dataclass(frozen=True)
class Ranks:
    """This process's place: ``rank`` of ``world_size``, on ``device``."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def start() -> Ranks:
    """Initialise torch.distributed through DeepSpeed; one process where no launcher is."""
    if "RANK" not in os.environ:
        single = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        # Port 0: the store listens on whichever is free when it starts.
        os.environ.update(single, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed calls collectives by the names that torch 2.14 renames.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        # A C++ build of a minute at the first start, and a failure where there is no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if accelerator.device_name() != "cpu":
        accelerator.set_device(local_rank)
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    device = torch.device(accelerator.device_name(local_rank))
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


_ERRORS = "fastclip/errors"
_PATIENCE = 5.0


def tell(error: UserError) -> None:
    """Print an error, once however many processes meet one.

    Before the processes know each other the first one of each machine prints, afterwards whichever
    comes first: an error may be one rank's alone.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return
    # Where the store does not answer, rank 0, which keeps it, has told its error and gone.
    with contextlib.suppress(RuntimeError):
        store, patience = _store(), time.monotonic() + _PATIENCE
        if store.add(_ERRORS, 1) == 1:
            print(f"error: {error}", file=sys.stderr, flush=True)
        # Rank 0 stays until the others, who may be on their way to the same error, have asked.
        while dist.get_rank() == 0 and store.add(_ERRORS, 0) < dist.get_world_size():
            if time.monotonic() > patience:
                return
            time.sleep(0.05)


def error_was_told() -> bool:
    """Whether another process has met an error, which breaks this one's collectives."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return False
    try:
        return _store().add(_ERRORS, 0) > 0
    except RuntimeError:
        return True


def _store() -> dist.Store:
    return dist.distributed_c10d._get_default_store()


def all_finite(values: torch.Tensor, ranks: Ranks) -> bool:
    """Whether ``values`` are finite on every rank."""
    finite = torch.isfinite(values).all().to(torch.int32)
    if ranks.world_size > 1:
        dist.all_reduce(finite, op=dist.ReduceOp.MIN)
    return bool(finite)


def mean_over_ranks(value: torch.Tensor, ranks: Ranks) -> float:
    value = value.detach().double().clone()
    if ranks.world_size > 1:
        dist.all_reduce(value)
    return float(value) / ranks.world_size
