"""Processes joined by gloo that live for a test session and run the functions they are sent."""

import multiprocessing
import os
import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ports import free_port

TIMEOUT_SECONDS = 60
# How long the other ranks may take once one has raised.
GRACE_SECONDS = 10


@dataclass(frozen=True)
class RankError:
    """What a rank raised."""

    kind: str
    message: str
    trace: str


class Pool:
    """``world`` processes of one gloo world; started at the first call, again after a failure.

    They are forked from a process that has imported ``preload``, a module in ``folder``.
    """

    def __init__(self, world: int, backend: str, folder: Path, preload: str) -> None:
        self.world = world
        self.folder, self.preload = folder, preload
        self.backend = backend
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """``function(rank, world, ...)`` on every rank; a RankError in place of what raised."""
        if not self._processes:
            self._start()
        message = pickle.dumps((function, args, kwargs))
        for pipe in self._pipes:
            pipe.send_bytes(message)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        waiting = dict(enumerate(self._pipes))
        answers: dict[int, Any] = {}
        while waiting:
            ready = wait(waiting.values(), timeout=deadline - time.monotonic())
            if not ready:
                self.close()
                traces = [a.trace for a in answers.values() if isinstance(a, RankError)]
                raise TimeoutError(
                    "\n".join([f"{function.__name__}: {list(waiting)} hang", *traces])
                )
            for rank in [rank for rank, pipe in waiting.items() if pipe in ready]:
                answers[rank] = pickle.loads(waiting.pop(rank).recv_bytes())
                if isinstance(answers[rank], RankError):
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        return [answers[rank] for rank in range(self.world)]

    def results(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """``run``, raising the first RankError."""
        answers = self.run(function, *args, **kwargs)
        for rank, answer in enumerate(answers):
            if isinstance(answer, RankError):
                self.close()
                raise AssertionError(f"rank {rank} of {self.world}:\n{answer.trace}")
        return answers

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        # The server imports everything once, and each rank is forked from it.
        context.set_forkserver_preload(["torch._dynamo", "torch.distributed.nn", self.preload])
        paths = str(self.folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        port = free_port()
        for rank in range(self.world):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, self.world, self.backend, port, theirs), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []


def _serve(rank: int, world: int, backend: str, port: int, pipe: Connection) -> None:
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    if backend == "recording":
        import recording_group

        recording_group.register()
    dist.init_process_group(
        backend,
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )
    while True:
        try:
            function, args, kwargs = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = function(rank, world, *args, **kwargs)
        except Exception as error:
            answer = RankError(type(error).__name__, str(error), traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))
