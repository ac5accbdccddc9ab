"""A process group over gloo that counts the elements each collective makes its rank send."""

from typing import Any

import torch
import torch.distributed as dist

sent: dict[str, int] = {}


def register() -> None:
    dist.Backend.register_backend("recording", _create, devices=["cpu"])


def _create(store: Any, rank: int, size: int, timeout: Any) -> "RecordingGroup":
    return RecordingGroup(dist.ProcessGroupGloo(store, rank, size, timeout), rank, size)


def _others(tensors: list[torch.Tensor], rank: int) -> int:
    return sum(t.numel() for other, t in enumerate(tensors) if other != rank)


class RecordingGroup(dist.ProcessGroup):
    """Counts what must leave a rank: its rows once per other rank for a gather, what is others' for
    an exchange or a reduce-scatter, and as much twice over for an all-reduce."""

    def __init__(self, gloo: Any, rank: int, size: int) -> None:
        super().__init__(rank, size)
        self.gloo = gloo
        self.me, self.world = rank, size

    def getBackendName(self) -> str:
        return "recording"

    def _record(self, name: str, elements: int) -> None:
        sent[name] = sent.get(name, 0) + elements

    def allgather(self, outputs, inputs, opts):
        self._record("all_gather", inputs[0].numel() * (self.world - 1))
        return self.gloo.allgather(outputs, inputs, opts)

    def all_gather_single(self, output, own, opts):
        self._record("all_gather", own.numel() * (self.world - 1))
        return self.gloo._allgather_base(output, own, opts)

    def alltoall(self, outputs, inputs, opts):
        self._record("all_to_all", _others(inputs, self.me))
        return self.gloo.alltoall(outputs, inputs, opts)

    def all_to_all_single(self, output, own, out_splits, in_splits, opts):
        splits = in_splits or [own.shape[0] // self.world] * self.world
        self._record("all_to_all", _others(list(own.split(splits)), self.me))
        return self.gloo.alltoall_base(output, own, out_splits, in_splits, opts)

    def reduce_scatter_single(self, output, own, opts):
        self._record("reduce_scatter", own.numel() - output.numel())
        return self.gloo._reduce_scatter_base(output, own, opts)

    # The names before torch 2.14.
    _allgather_base = all_gather_single
    alltoall_base = all_to_all_single
    _reduce_scatter_base = reduce_scatter_single

    def allreduce(self, tensors, opts):
        elements = sum(t.numel() for t in tensors)
        self._record("all_reduce", 2 * elements * (self.world - 1) // self.world)
        return self.gloo.allreduce(tensors, opts)

    def broadcast(self, tensors, opts):
        if opts.rootRank == self.me:
            self._record("broadcast", tensors[0].numel() * (self.world - 1))
        return self.gloo.broadcast(tensors, opts)

    def reduce(self, tensors, opts):
        if opts.rootRank != self.me:
            self._record("reduce", tensors[0].numel())
        return self.gloo.reduce(tensors, opts)

    def send(self, tensors, to, tag=0):
        self._record("send", tensors[0].numel())
        return self.gloo.send(tensors, to, tag)

    def recv(self, tensors, source, tag=0):
        return self.gloo.recv(tensors, source, tag)

    def _get_backend(self, device):
        return self.gloo
