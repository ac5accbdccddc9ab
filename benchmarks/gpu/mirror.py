"""One process that stands for a rank of several, all of which hold the same rows.

What the other ranks would send is then known without them: a gather repeats this rank's rows, a sum
over ranks multiplies, and the blocks that they would scatter to this rank are those that it has for
them, up to their order. The real code of a distributed loss runs unchanged and its result is exact:
the loss of the rows alone plus log W, with the same gradients.

On a GPU a collective can take time as well: it waits for what was queued before it, then holds its
stream for as long as its bytes need at ``bytes_per_second``, and who waits for it waits for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.gpu.clock import Mark, spin

_BACKEND = "fastclip-mirror"


class _Arriving(dist.Work):
    """A collective under way; waiting makes the caller's stream wait, not the host."""

    def __init__(self, done: torch.cuda.Event | None):
        super().__init__()
        self.done = done

    def wait(self, timeout=None) -> bool:
        if self.done is not None:
            torch.cuda.current_stream().wait_event(self.done)
        return True

    def is_completed(self) -> bool:
        return self.done is None or self.done.query()


class Mirror(dist.ProcessGroup):
    """Rank 0 of ``world`` equal ranks.

    ``bytes_per_second`` None makes collectives as fast as a copy. ``sent`` lists the bytes that
    this rank sends in each, ``waits`` the start and end of each delay, until they are cleared.
    """

    supports_coalescing = False

    def __init__(self, rank: int, world: int):
        super().__init__(rank, world)
        self.world = world
        self.bytes_per_second: float | None = None
        self.sent: list[int] = []
        self.waits: list[tuple[Mark, Mark]] = []
        self._posted: deque[Tensor] = deque()
        self._streams: tuple[torch.cuda.Stream, torch.cuda.Stream] | None = None

    def getBackendName(self) -> str:
        return _BACKEND

    def _get_backend(self, device: torch.device) -> Mirror:
        return self

    def seconds_waited(self) -> float:
        """Sum of the delays; the device must have passed them."""
        return sum(end - start for start, end in self.waits)

    def _move(self, pairs: list[tuple[Tensor, Tensor]], sent: int, factor: int = 1) -> _Arriving:
        """Copy sources to targets, ``factor`` times as large, taking as long as ``sent`` bytes."""
        self.sent.append(sent)
        if not pairs[0][0].is_cuda:
            _copy(pairs, factor)
            return _Arriving(None)
        if self._streams is None:
            self._streams = torch.cuda.Stream(), torch.cuda.Stream()
        # The copy runs beside the delay, which is to be the whole time and not an addition.
        delaying, copying = self._streams
        delaying.wait_stream(torch.cuda.current_stream())
        if self.bytes_per_second is not None:
            with torch.cuda.stream(delaying):
                start = Mark()
                spin(sent / self.bytes_per_second)
                self.waits.append((start, Mark()))
        copying.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(copying):
            _copy(pairs, factor)
            copying.wait_stream(delaying)
            done = torch.cuda.Event()
            done.record()
        delaying.wait_stream(copying)
        for target, source in pairs:
            target.record_stream(copying)
            source.record_stream(copying)
        return _Arriving(done)

    # The methods below are what torch.distributed's functions call, under the names of torch 2.11
    # and of 2.14.

    def all_gather_single(self, target: Tensor, own: Tensor, opts=None) -> _Arriving:
        pairs = [(part, own) for part in target.chunk(self.world)]
        return self._move(pairs, (self.world - 1) * own.nbytes)

    _allgather_base = all_gather_single

    def allgather(self, targets, owns, opts=None) -> _Arriving:
        pairs = [(part, owns[0]) for part in targets[0]]
        return self._move(pairs, (self.world - 1) * owns[0].nbytes)

    def all_to_all_single(self, target, source, target_sizes, source_sizes, opts=None) -> _Arriving:
        return self._move([(target, source)], self._others(source))

    alltoall_base = all_to_all_single

    def alltoall(self, targets, sources, opts=None) -> _Arriving:
        sent = sum(self._others(source) for source in sources)
        return self._move(list(zip(targets, sources, strict=True)), sent)

    def reduce_scatter_single(self, target: Tensor, source: Tensor, opts=None) -> _Arriving:
        parts = source.view(self.world, *target.shape)
        return self._move([(target, parts)], self._others(source))

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter(self, targets, sources, opts=None) -> _Arriving:
        return self.reduce_scatter_single(targets[0], torch.stack(list(sources[0])))

    def allreduce(self, tensors, opts=None) -> _Arriving:
        summed = opts is None or opts.reduceOp == dist.ReduceOp.SUM
        sent = sum(2 * self._others(tensor) for tensor in tensors)
        return self._move([(t, t) for t in tensors], sent, self.world if summed else 1)

    def broadcast(self, tensors, opts=None) -> _Arriving:
        return self._move([(t, t) for t in tensors], sum(t.nbytes for t in tensors))

    def barrier(self, opts=None) -> _Arriving:
        return _Arriving(None)

    def send(self, tensors, rank: int, tag: int) -> _Arriving:
        self._posted.append(tensors[0])
        return _Arriving(None)

    def recv(self, tensors, rank: int, tag: int) -> _Arriving:
        source = self._posted.popleft()
        return self._move([(tensors[0], source)], source.nbytes)

    def _others(self, tensor: Tensor) -> int:
        return tensor.nbytes * (self.world - 1) // self.world


def _copy(pairs: list[tuple[Tensor, Tensor]], factor: int) -> None:
    for target, source in pairs:
        if source.ndim == target.ndim + 1:
            torch.sum(source, 0, out=target)
        elif target is not source:
            target.copy_(source)
        if factor != 1:
            target.mul_(factor)


def _create(store, rank: int, world: int, timeout) -> Mirror:
    return Mirror(rank, world)


@contextmanager
def mirrored(world: int) -> Iterator[Mirror]:
    """The default group as a ``Mirror`` of ``world`` ranks, until the block ends."""
    if _BACKEND not in dist.Backend.backend_list:
        dist.Backend.register_backend(_BACKEND, _create, devices=["cpu", "cuda"])
    dist.init_process_group(_BACKEND, store=dist.HashStore(), rank=0, world_size=world)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()
