"""Starting the process group: under the deepspeed launcher, torchrun or plain python."""

import contextlib
import logging
import os
import socket
import sys
import time
import warnings

import torch
import torch.distributed as dist

from fastclip.comm.ranks import Ranks
from fastclip.errors import UserError


def start() -> Ranks:
    """Initialize torch.distributed through DeepSpeed; one process where no launcher is.

    Raises :class:`UserError` where the processes cannot find each other.
    """
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    # As torchrun calls it: how many processes share this machine's cores and memory.
    os.environ.setdefault(
        "LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", os.environ["WORLD_SIZE"])
    )
    check_port()
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
    try:
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    except (RuntimeError, ValueError, OSError) as error:
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the processes cannot meet at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} "
            f"({told}): give the launcher another --master_port or --master_addr"
        ) from error
    device = torch.device(accelerator.device_name(local_rank))
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def check_port() -> None:
    """Refuse a port that something else listens on; one process alone takes any that is free."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return  # torchrun's own agent listens there
    if os.environ["WORLD_SIZE"] == "1":
        # Port 0: the store listens on whichever is free when it starts.
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    elif os.environ["RANK"] == "0":
        port = os.environ.get("MASTER_PORT", "")
        with socket.socket() as probe:
            # As the store does it: a port whose last connections are closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", int(port)))
                probe.listen(1)
            except (OSError, ValueError, OverflowError) as error:
                found = getattr(error, "strerror", None) or error
                raise UserError(
                    f"port {port or 'MASTER_PORT'}, at which the processes of this run were to "
                    f"meet, cannot be used ({found}): give the launcher another --master_port"
                ) from error


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


_ERRORS = "fastclip/errors"
_PATIENCE = 5.0


def report_error(error: UserError) -> None:
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
