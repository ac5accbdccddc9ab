"""Run a function in several gloo processes and collect what each returns."""

import io
import os
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp
from ports import free_port

# Imported once, in the server that all processes are forked from.
PRELOADED = ["deepspeed", "timm", "transformers.generation", "torch._inductor"]
PRELOADED += ["fastclip.training.session", "matplotlib.figure"]


def run_ranks(worker: Callable, world_size: int, *args: Any, timeout: float = 240) -> list:
    """``worker(rank, *args)`` in ``world_size`` fresh processes; results in order of rank."""
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # deepspeed asks at its import
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port = free_port()
    results: Any = context.Queue()
    processes = [
        context.Process(target=_enter, args=(rank, world_size, port, worker, args, results))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    found: dict[int, Any] = {}
    try:
        for _ in processes:
            rank, value, error = results.get(timeout=timeout)
            if error:
                raise AssertionError(f"rank {rank}: {error}")
            found[rank] = torch.load(io.BytesIO(value), weights_only=False)
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
    return [found[rank] for rank in range(world_size)]


def _enter(rank, world_size, port, worker, args, results):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    try:
        # Bytes, not tensors: a tensor in a queue lives in shared memory of a process about to end.
        packed = io.BytesIO()
        torch.save(worker(rank, *args), packed)
        results.put((rank, packed.getvalue(), None))
    except BaseException:
        results.put((rank, None, traceback.format_exc()))
