"""The worker processes of a torch ``DataLoader``, watched so that none can stop a run unseen."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from fastclip.data.loaders.children import ON_SIGTERM, RecordingForks, how_it_ended, on_child_signal
from fastclip.data.loaders.sharing import folder_of_sockets, unpack
from fastclip.data.loaders.worker_process import GRACE, Calls, Function, SignsOfLife, begin
from fastclip.errors import UserError

_SECONDS_BETWEEN_REQUESTS = 0.1
_SECONDS_FOR_OUR_OWN_END = 0.5
PREFETCH = 2
"""Items a worker makes ahead."""

Result = TypeVar("Result")

_COMPLETE = object()


class WorkerPool:
    """Forked workers that call ``function``; see :class:`fastclip.data.loaders.workers.WorkerItems`
    for what they promise."""

    def __init__(self, function: Function, workers: int, timeout: float) -> None:
        self._timeout = timeout
        self._context = RecordingForks()
        self._signs, self._folder = SignsOfLife(), folder_of_sockets()
        self._tasks = _Tasks()
        self._awaited_since: float | None = None
        self._hung = False
        self._ended = threading.Event()
        self._loader: DataLoader | None = _Loader(
            Calls(function),
            batch_size=None,
            sampler=self._tasks,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=PREFETCH,
            persistent_workers=True,
            multiprocessing_context=self._context,
            worker_init_fn=partial(
                begin,
                function=function,
                parent=os.getpid(),
                signs=self._signs,
                folder=self._folder,
            ),
            # Of its own, or every epoch would draw a number from torch's global one.
            generator=torch.Generator(),
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def items(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """What the workers packed for each task."""
        self._tasks.now = tasks
        packed = self._await(self._start)

        def receive() -> Any:
            payload = next(packed, None)
            return _COMPLETE if payload is None else unpack(payload)

        while (item := self._await(receive)) is not _COMPLETE:
            yield item

    def _start(self) -> Iterator[bytes]:
        assert self._loader is not None, "the pool has ended"
        starts_workers = not self._context.started
        try:
            return iter(self._loader)
        except OSError as error:
            if not starts_workers:
                raise
            count = self._loader.num_workers
            raise UserError(
                f"cannot start {count} worker processes ({error}): take fewer --workers"
            ) from error

    def end(self) -> None:
        """End every worker: in order where it can, by force after a few seconds."""
        self._ended.set()
        restore = on_child_signal(self._interrupt)
        deadline = time.monotonic() + GRACE
        try:
            # Asked again and again: a signal that comes just before a process begins to wait does
            # not end the wait.
            while time.monotonic() < deadline:
                self._terminate()
                running = [p.sentinel for p in self._context.started if p.exitcode is None]
                if not running:
                    break
                wait(running, timeout=_SECONDS_BETWEEN_REQUESTS)
            self._kill()
            for process in self._context.started:
                process.join()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._loader = None
            restore()

    def _await(self, call: Callable[[], Result]) -> Result:
        """``call``, which waits for workers and which the end of one interrupts.

        No context manager: a signal in the midst of its exit would leave the handler in place.
        """
        restore = on_child_signal(self._interrupt)
        try:
            self._awaited_since = time.monotonic()
            if self._has_lost_one():
                raise _WorkerEndedError
            return call()
        except (_WorkerEndedError, RuntimeError, OSError, EOFError):
            self._awaited_since = None
            told = self._explain()
            if told is None:
                raise
            raise UserError(told) from None
        finally:
            self._awaited_since = None
            restore()

    def _interrupt(self) -> None:
        if self._awaited_since is not None and self._has_lost_one():
            raise _WorkerEndedError

    def _has_lost_one(self) -> bool:
        return any(process.exitcode is not None for process in self._context.started)

    def _explain(self) -> str | None:
        """Why a wait ended as it did; None where no worker is to blame."""
        if self._hung:
            return (
                f"the worker processes gave nothing for {self._timeout:g} seconds: the data's disk "
                "or command may have stalled; a larger --read-timeout waits longer"
            )
        # What a worker leaves half sent may be seen before its end.
        processes = {process.sentinel: process for process in self._context.started}
        for sentinel in wait(list(processes), timeout=1.0):
            processes[sentinel].join()
        ended = [process for process in processes.values() if process.exitcode is not None]
        if not ended:
            return None
        first = min(ended, key=lambda process: process.exitcode)
        if first.exitcode == ON_SIGTERM:
            # Who ends the workers may be ending this process too, which then tells of that.
            time.sleep(_SECONDS_FOR_OUR_OWN_END)
        return f"a worker process (pid {first.pid}) {how_it_ended(first.exitcode)}"

    def _watch(self) -> None:
        """Ends workers that give no sign of life for too long, which ends the wait for them."""
        while not self._ended.wait(min(1.0, self._timeout / 4)):
            since = self._awaited_since
            if since is None:
                continue
            if time.monotonic() - max(since, self._signs.last()) > self._timeout:
                self._hung = True
                self._terminate()
                if not self._ended.wait(GRACE):
                    self._kill()
                return

    def _terminate(self) -> None:
        for process in self._context.started:
            process.terminate()

    def _kill(self) -> None:
        for process in self._context.started:
            process.kill()


class _Tasks:
    """A sampler whose indices are the tasks of now."""

    now: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.now)


class _Loader(DataLoader):
    def check_worker_number_rationality(self) -> None:
        """Nothing: a run says itself that there are too many."""


class _WorkerEndedError(Exception):
    """Raised out of a wait for workers when one of them has ended."""


def _unchanged(packed: Any) -> Any:
    return packed
