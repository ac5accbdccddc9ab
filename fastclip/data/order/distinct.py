"""Orders in which no batch holds two records that are too alike."""

from collections import deque
from collections.abc import Iterator

import torch


def separate_groups(order: torch.Tensor, groups: torch.Tensor, batch: int) -> torch.Tensor:
    """Reorder ``order`` (rows, int64) so that no batch holds two rows that share a group.

    A row that would is put off to the first later batch that has room for it; whole batches alone
    are returned, fewer than came in where the rows left over at the end cannot be told apart.
    ``groups`` (int64, ``[n]`` or ``[n, k]``) gives each row's groups; negative ones stand for none.
    """
    waiting: deque[int] = deque()
    coming: Iterator[int] = iter(order.tolist())
    groups_of = [
        frozenset(group for group in of_row if group >= 0)
        for of_row in groups.view(len(groups), -1).tolist()
    ]
    out: list[int] = []
    while True:
        taken: list[int] = []
        seen: set[int] = set()
        for _ in range(len(waiting)):
            row = waiting.popleft()
            if len(taken) < batch and seen.isdisjoint(groups_of[row]):
                seen |= groups_of[row]
                taken.append(row)
            else:
                waiting.append(row)
        while len(taken) < batch:
            new = next(coming, None)
            if new is None:
                return torch.tensor(out, dtype=torch.int64)
            if seen.isdisjoint(groups_of[new]):
                seen |= groups_of[new]
                taken.append(new)
            else:
                waiting.append(new)
        out += taken
