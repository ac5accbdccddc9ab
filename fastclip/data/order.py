"""Orders of an epoch."""

from collections import deque

import torch


def spread(order: torch.Tensor, groups: torch.Tensor, batch: int) -> torch.Tensor:
    """Reorder ``order`` (rows, int64) so that no batch holds two rows of one group.

    A row that would is put off to the first later batch that has room for it; whole batches alone
    are returned, fewer than came in where the rows left over at the end cannot be told apart.
    ``groups`` (int64) gives each row's group.
    """
    waiting: deque[int] = deque()
    coming = iter(order.tolist())
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
        while len(taken) < batch and (row := next(coming, None)) is not None:
            if kind[row] in seen:
                waiting.append(row)
            else:
                seen.add(kind[row])
                taken.append(row)
        if len(taken) < batch:
            return torch.tensor(out, dtype=torch.int64)
        out += taken
