"""The entries of sparse targets, sorted, and how many of them are held at once."""

from bisect import bisect_right
from collections.abc import Iterator

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear.csr import Csr

# What an entry takes of the workspace at most. A GPU sorts entries, and sums those of one place, in
# copies of its own.
ENTRY_BYTES, CPU_ENTRY_BYTES = 136, 120
# Vectors over the rows whose entries are held.
ROW_BYTES = 64


class Groups:
    """Rows of CSR targets in groups whose entries are held at once: as many as fit, on a CPU. A GPU
    holds all at once, for cutting them would wait for the device.

    ``more_bytes``: what the caller holds an entry beside those of ``Entries``. ``least`` and
    ``most``: the bytes of the largest row alone and of all rows.
    """

    def __init__(self, target: Csr, more_bytes: int = 0) -> None:
        self._rows, self._count = target.rows, len(target.rows) - 1
        self._cuts = target.rows.device.type == "cpu" and self._count > 0
        self._entry = more_bytes + (CPU_ENTRY_BYTES if self._cuts else ENTRY_BYTES)
        self.least = self.most = ROW_BYTES * self._count + self._entry * len(target.columns)
        if self._cuts:
            self.least = ROW_BYTES + self._entry * int(target.rows.diff().amax())

    def spans(self, most: int) -> Iterator[slice]:
        """The groups in order, each of at most so many bytes, which are at least ``least``."""

        def before(row: int) -> int:
            return ROW_BYTES * row + self._entry * int(self._rows[row])

        start = 0
        while start < self._count:
            stop = self._count
            if self._cuts and self.most > most:
                ends = range(self._count + 1)
                stop = bisect_right(ends, before(start) + most, lo=start + 1, key=before) - 1
            yield slice(start, stop)
            start = stop


class Entries:
    """The entries of CSR targets one by one, sorted by row and column.

    ``index [kept]`` are the rows that are computed: by default those with entries, or all of a
    GPU's, to spare a synchronisation. Rows below count those; ``counts`` are their numbers of
    entries. Vectors ``[entries]``: ``order`` where an entry was before it was sorted, ``row``,
    ``column``, ``value`` as given, ``total`` the sum over all entries at the same place, ``first``
    whether an entry is the first there, ``place`` the entry's in ``[kept, V]``, flattened.
    """

    def __init__(self, target: Csr, vocabulary: int, index: Tensor | None = None) -> None:
        rows, columns, values = target
        counts = rows.diff()
        if index is None:
            index = torch.arange(len(counts), device=rows.device)
            if rows.device.type == "cpu":
                index = index[counts > 0]
        self.index = index
        self.counts = counts = counts[index]
        self._ends = torch.cat([rows[:1], counts.cumsum(0)]) if rows.device.type == "cpu" else None
        self.row = torch.repeat_interleave(
            torch.arange(len(index), device=rows.device), counts, output_size=len(columns)
        )
        self._vocabulary = vocabulary
        self.place, self.order = (self.row * vocabulary + columns).sort(stable=True)
        self.column = columns[self.order]
        dtype = statistics_dtype(rows.device)
        if values is None:
            self.value = columns.new_ones(len(columns), dtype=dtype)
        else:
            self.value = values[self.order].to(dtype)
        self.first = torch.ones_like(self.place, dtype=torch.bool)
        torch.ne(self.place[1:], self.place[:-1], out=self.first[1:])
        self.total = self.place_sums(self.value, slice(None))

    def place_sums(self, values: Tensor, span: slice) -> Tensor:
        """Sums of the ``values`` of a span of entries over those at the same place, at each; the
        span has all of a row or none."""
        group = self.first[span].cumsum(0).sub_(1)
        sums = torch.zeros_like(values).index_put_((group,), values, accumulate=True)
        return sums[group]

    def row_sums(self, values: Tensor) -> Tensor:
        """Sums of a vector ``[entries]`` over each row, in a fixed order."""
        sums = values.new_zeros(len(self.index))
        return sums.index_put_((self.row,), values, accumulate=True)

    def of(self, vector: Tensor) -> Tensor:
        """A vector over the computed rows, at each entry's."""
        return vector[self.row]

    def span(self, chunk: slice) -> slice:
        """Entries among which are those of the chunk's rows; all of them on a GPU."""
        if self._ends is None:
            return slice(0, len(self.row))
        return slice(int(self._ends[chunk.start]), int(self._ends[chunk.stop]))

    def places(self, chunk: slice) -> tuple[Tensor, Tensor]:
        """Where the entries of ``span(chunk)`` stand in the chunk's ``[rows, V]``, flattened, and
        which do; those of other rows are given the place after the last."""
        span = self.span(chunk)
        row = self.row[span]
        inside = (row >= chunk.start) & (row < chunk.stop)
        place = self.place[span] - chunk.start * self._vocabulary
        return place.masked_fill_(~inside, (chunk.stop - chunk.start) * self._vocabulary), inside

    def bounds(self, rows: slice, columns: slice, step: int) -> Tensor:
        """``[ceil(columns / step) + 1, rows]``: where the entries of each row that lie at or beyond
        columns ``columns.start``, ``+ step``, ... and ``columns.stop`` begin."""
        edges = torch.arange(columns.start, columns.stop + step, step, device=self.row.device)
        edges.clamp_(max=columns.stop)
        row = torch.arange(rows.start, rows.stop, device=self.row.device)
        wanted = torch.add(edges.unsqueeze(1), row, alpha=self._vocabulary)
        return torch.searchsorted(self.place, wanted, out_int32=len(self.row) < 2**31)
