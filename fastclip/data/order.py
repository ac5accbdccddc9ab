"""Orders of an epoch."""

from collections import deque
from collections.abc import Iterator

import torch


def spread(order: torch.Tensor, groups: torch.Tensor, batch: int) -> torch.Tensor:
    """Reorder ``order`` (rows, int64) so that no batch holds two rows of one group.

    A row that would is put off to the first later batch that has room for it; whole batches alone
    are returned, fewer than came in where the rows left over at the end cannot be told apart.
    ``groups`` (int64) gives each row's group.
    """
    waiting: deque[int] = deque()
    coming: Iterator[int] = iter(order.tolist())
    kind = groups.tolist()
    out: list[int] = []
    while True:
        taken: list[int] = []
        seen: set[int] = set()
        for _ in range(len(waiting)):
            row = waiting.popleft()
            if len(taken) < batch and kind[row] not in seen:
                seen.add(kind[row])
                taken.append(row)
            else:
                waiting.append(row)
        while len(taken) < batch:
            new = next(coming, None)
            if new is None:
                return torch.tensor(out, dtype=torch.int64)
            if kind[new] in seen:
                waiting.append(new)
            else:
                seen.add(kind[new])
                taken.append(new)
        out += taken
