"""Items made by worker processes, in the order of their tasks; a worker's failure ends the run."""

from collections.abc import Generator, Iterable
from multiprocessing.util import Finalize
from typing import Any

from fastclip.data.loaders.sharing import check_room
from fastclip.data.loaders.worker_pool import PREFETCH, WorkerPool
from fastclip.data.loaders.worker_process import Bug, Function, Refusal, close
from fastclip.errors import UserError

Items = Generator[dict[str, Any], None, None]


class WorkerItems:
    """Calls ``function`` for tasks in worker processes, or in this one with 0 ``workers``.

    Workers are forked at the first item and live until :meth:`close`: what ``function`` keeps
    between calls (open parts) is kept by each worker for itself. Task i goes to worker
    i % ``workers``. An iterator that is closed before its end ends the workers too, and the next
    one starts new ones. A method ``close`` of ``function``, if there is one, is called where its
    work ends.

    Make it and use it in the main thread: elsewhere the end of a worker is noticed after 5 seconds.
    Raises :class:`UserError` where ``/dev/shm`` has too little room.

    Args:
        function: makes the item of a task, a dict of columns or of whatever can be pickled.
        workers: processes, each with one thread.
        item_nbytes: bytes of the tensors of an item, at most; for the check of ``/dev/shm``.
        timeout: seconds that may pass without a sign of life
            (:func:`fastclip.data.loaders.worker_process.sign_of_life`) while an item is awaited.
    """

    def __init__(
        self, function: Function, workers: int, *, item_nbytes: int, timeout: float
    ) -> None:
        self.function, self.workers, self.timeout = function, workers, timeout
        if workers:
            # One more than is prefetched: the one that is being used.
            check_room(item_nbytes, workers * PREFETCH + 1)
        self._running: Items | None = None
        self._end_pool: Finalize | None = None
        self._pool: WorkerPool | None = None

    def items(self, tasks: Iterable[Any]) -> Items:
        """The items of ``tasks``, in their order; ends an iterator that still runs.

        Raises :class:`UserError` where the function does, or a worker ends or hangs.
        """
        self._stop_running()
        self._running = self._from_workers(tasks) if self.workers else self._made_here(tasks)
        return self._running

    def close(self) -> None:
        """End the workers; the next items start new ones."""
        self._stop_running()
        self._end()

    def _made_here(self, tasks: Iterable[Any]) -> Items:
        complete = False
        try:
            yield from map(self.function, tasks)
            complete = True
        finally:
            if not complete:
                close(self.function)

    def _from_workers(self, tasks: Iterable[Any]) -> Items:
        complete = False
        try:
            if self._pool is None:
                self._pool = WorkerPool(self.function, self.workers, self.timeout)
                # Not in a fork of this process, of which the end is no reason.
                self._end_pool = Finalize(self, self._pool.end, exitpriority=100)
            for item in self._pool.items(tasks):
                if isinstance(item, Refusal):
                    raise UserError(item.sentence)
                if isinstance(item, Bug):
                    raise RuntimeError(f"in a worker process:\n{item.traceback}")
                yield item
            complete = True
        finally:
            if not complete:
                self._end()

    def _end(self) -> None:
        if self._end_pool is not None:
            self._end_pool()
        self._end_pool = self._pool = None
        if not self.workers:
            close(self.function)

    def _stop_running(self) -> None:
        if self._running is not None:
            self._running.close()
        self._running = None
