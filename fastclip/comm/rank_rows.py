"""The collectives of a batch whose ranks may hold different numbers of rows.

Elements that a rank sends, counted by what must leave it: a gather ``n_r (W - 1)`` rows, an
exchange or a reduce-scatter the ``N - n_r`` rows of others. gloo and nccl serve all of them, and
every result has the same bits on each run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# torch 2.14 renamed both and warns of the old names; a torch without ranks has neither.
all_gather_single: Any = getattr(
    dist, "all_gather_single", getattr(dist, "all_gather_into_tensor", None)
)
reduce_scatter_single: Any = getattr(
    dist, "reduce_scatter_single", getattr(dist, "reduce_scatter_tensor", None)
)

TRAVEL = ("bidir", "shift", "reduce", "gather")

# Gradients that a rank can want: of its image rows, of its text rows, of the logit scale or bias,
# of its extra texts.
IMAGE, TEXT, SCALE, EXTRA = 1, 2, 4, 8


@dataclass
class Shards:
    """The rows each rank of ``group`` holds, and the collectives that know about them.

    Attributes:
        rows: of each rank. grad_flags: the gradients that each wants.
        rank, world: this rank's place, and how many there are.
        total: rows of all ranks. offset: those of the ranks before. own: those of this rank.
    """

    group: dist.ProcessGroup
    rows: tuple[int, ...]
    grad_flags: tuple[int, ...]
    rank: int
    world: int
    total: int
    offset: int
    own: int

    def wanted(self, what: int) -> bool:
        """Whether any rank wants one of the gradients in ``what``."""
        return any(flags & what for flags in self.grad_flags)

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        starts = [sum(self.rows[:rank]) for rank in range(self.world)]
        return tuple(slice(s, s + n) for s, n in zip(starts, self.rows, strict=True))

    @property
    def span(self) -> slice:
        """Where this rank's rows lie in the batch."""
        return self.spans[self.rank]

    def of_another(self, own: Tensor, equal: bool) -> Shards:
        """The shards of another matrix of the batch, of which this rank holds the rows ``own``; a
        collective, unless it is known that all ranks hold as many."""
        rows = (own.shape[0],) * self.world
        if not equal:
            counted = torch.tensor([[own.shape[0]]], device=own.device)
            table = counted.new_empty((self.world, 1))
            all_gather_single(table, counted, group=self.group)
            rows = tuple(table.flatten().tolist())
        before = sum(rows[: self.rank])
        return replace(self, rows=rows, total=sum(rows), offset=before, own=rows[self.rank])

    def spread(self, values: Tensor) -> Tensor:
        """One value per rank, ``[W]`` -> one per row, ``[N]``."""
        return torch.cat([v.expand(n) for v, n in zip(values, self.rows, strict=True)])

    def all_gather(self, own: Tensor) -> Tensor:
        """``[n_r, ...]`` of every rank -> ``[N, ...]``."""
        if min(self.rows) < max(self.rows):
            return all_gather(own, self.rows, self.group)
        out = own.new_empty((self.total, *own.shape[1:]))
        all_gather_single(out, own.contiguous(), group=self.group)
        return out

    def all_gather_with(self, own: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """``[n_r, c]`` and ``[k]`` of every rank -> ``[N, c]`` and ``[W, k]`` in one collective."""
        c, k = own.shape[1], extra.numel()
        sizes = tuple(n * c + k for n in self.rows)
        parts = all_gather(torch.cat([own.flatten(), extra]), sizes, self.group).split(sizes)
        rows = torch.cat([part[: len(part) - k] for part in parts]).view(-1, c)
        return rows, torch.stack([part[len(part) - k :] for part in parts])

    def all_gather_scalars(self, own: Tensor) -> Tensor:
        """``[k]`` of every rank -> ``[W, k]``; summed over dimension 0 it has the same bits on
        every rank."""
        return all_gather(own[None], (1,) * self.world, self.group)

    def exchange_columns(self, partial: Tensor) -> Tensor:
        """Statistics of all N columns over this rank's rows, ``[N, ...]`` -> those of this rank's
        own columns over each rank's rows, ``[W, n_r, ...]``."""
        received = partial.new_empty((self.world * self.own, *partial.shape[1:]))
        sizes_out, sizes_in = [self.own] * self.world, list(self.rows)
        dist.all_to_all_single(
            received, partial.contiguous(), sizes_out, sizes_in, group=self.group
        )
        return received.view(self.world, self.own, *partial.shape[1:])

    def reduce_scatter(self, partial: Tensor) -> Tensor:
        """Sum of ``[N, ...]`` over ranks, of which each keeps its own rows ``[n_r, ...]``.

        May overwrite ``partial``.
        """
        partial = partial.contiguous()
        if len(set(self.rows)) == 1:
            out = partial.new_empty((self.own, *partial.shape[1:]))
            reduce_scatter_single(out, partial, group=self.group)
            return out
        pending = [
            dist.reduce(partial[span], group_dst=rank, group=self.group, async_op=True)
            for rank, span in enumerate(self.spans)
            if self.rows[rank]
        ]
        _wait(pending)
        return partial[self.span].clone()

    def travel(self, own: Tensor, way: str) -> Iterator[tuple[int, Tensor]]:
        """Brings every rank's rows past this rank: yields ``(first row, block)``.

        ``gather`` yields the whole batch at once; ``reduce`` (a broadcast per rank), ``shift`` (a
        ring one way) and ``bidir`` (a ring both ways) one rank's rows at a time, the next on their
        way while the caller works on the last.
        """
        if way == "gather":
            yield 0, self.all_gather(own)
        elif way == "reduce":
            yield from self._broadcasts(own.contiguous())
        else:
            yield from self._ring(own.contiguous(), both_ways=way == "bidir")

    def _broadcasts(self, own: Tensor) -> Iterator[tuple[int, Tensor]]:
        def send(source: int) -> tuple[Tensor, list[dist.Work | None]]:
            block = own if source == self.rank else self._empty_block(own, source)
            if not self.rows[source]:
                return block, []
            work = dist.broadcast(block, group_src=source, group=self.group, async_op=True)
            return block, [work]

        block, pending = send(0)
        for source in range(self.world):
            _wait(pending)
            ready = block
            if source + 1 < self.world:
                block, pending = send(source + 1)
            yield self.spans[source].start, ready

    def _ring(self, own: Tensor, both_ways: bool) -> Iterator[tuple[int, Tensor]]:
        rank, world = self.rank, self.world
        right, left = (rank + 1) % world, (rank - 1) % world
        to_right = to_left = own
        ready = [(rank, own)]
        distance = 0
        while ready:
            # Blocks from the left are of rank - distance, those from the right of rank + distance.
            distance += 1
            operations, arriving = [], []
            far = 2 * distance <= world - 1 if both_ways else distance <= world - 1
            last_pair = both_ways and 2 * distance == world
            if far or last_pair:
                source = (rank - distance) % world
                block = self._empty_block(own, source)
                operations += self._hop(to_right, right, block, left)
                arriving.append((source, block))
                to_right = block
            if far and both_ways:
                source = (rank + distance) % world
                block = self._empty_block(own, source)
                operations += self._hop(to_left, left, block, right)
                arriving.append((source, block))
                to_left = block
            pending = dist.batch_isend_irecv(operations) if operations else []
            for source, block in ready:
                yield self.spans[source].start, block
            _wait(pending)
            ready = arriving

    def _hop(self, block: Tensor, to: int, into: Tensor, source: int) -> list[dist.P2POp]:
        operations = []
        if block.shape[0]:
            operations.append(dist.P2POp(dist.isend, block, group=self.group, group_peer=to))
        if into.shape[0]:
            operations.append(dist.P2POp(dist.irecv, into, group=self.group, group_peer=source))
        return operations

    def _empty_block(self, own: Tensor, rank: int) -> Tensor:
        return own.new_empty((self.rows[rank], *own.shape[1:]))


class AllGather(torch.autograd.Function):
    """``[n_r, ...]`` of every rank -> ``[N, ...]``; backward sums every rank's gradient of these
    rows."""

    @staticmethod
    def forward(ctx, own: Tensor, shards: Shards) -> Tensor:
        ctx.shards = shards
        return shards.all_gather(own)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.shards.reduce_scatter(grad.clone()), None


def all_gather(own: Tensor, sizes: tuple[int, ...], group: dist.ProcessGroup) -> Tensor:
    """``[n_r, ...]`` of every rank, n_r its entry of ``sizes`` -> ``[N, ...]``."""
    out = own.new_empty((sum(sizes), *own.shape[1:]))
    if len(set(sizes)) == 1:
        all_gather_single(out, own.contiguous(), group=group)
        return out
    # Uneven: a broadcast per rank into its place sends no padding and needs no second buffer.
    parts = out.split(sizes)
    parts[dist.get_rank(group)].copy_(own)
    pending = [
        dist.broadcast(part, group_src=rank, group=group, async_op=True)
        for rank, part in enumerate(parts)
        if sizes[rank]
    ]
    _wait(pending)
    return out


def _wait(pending: Iterable[dist.Work | None]) -> None:
    for work in pending:
        if work is not None:
            work.wait()
