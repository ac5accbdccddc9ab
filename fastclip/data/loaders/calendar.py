"""Which sizes of parts each epoch uses, and how many steps it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastclip.errors import UserError

State = dict[str, Any]


class Calendar:
    """Sizes and steps by epoch, the same on every rank.

    An epoch keeps the sizes with which it began; what is found meanwhile is for the next one.

    Args:
        sizes: int64 ``[parts]``, as they are known or believed before the first epoch.
        steps_of: steps of an epoch of parts of these sizes; raises :class:`UserError` where they
            do not make one.

    Attributes:
        epoch: the one that was begun last; -1 before the first.
        sizes: int64 ``[parts]``, with which it began.
        known: int64 ``[parts]``, with which the next one begins.
    """

    def __init__(self, sizes: np.ndarray, steps_of: Callable[[np.ndarray], int]) -> None:
        self.epoch = -1
        self.sizes = self.known = sizes
        self._steps_of = steps_of
        self._begun: list[int] = []
        self.steps = steps_of(sizes)

    def learn(self, found: Mapping[int, int]) -> None:
        """Take true sizes of parts for the next epoch."""
        if found:
            self.known = self.known.copy()
            self.known[list(found)] = list(found.values())

    def begin(self, epoch: int) -> None:
        """Go on to ``epoch``, with all that is known by now; nothing for the one that runs."""
        if epoch < self.epoch:
            raise ValueError(f"epoch {epoch} cannot begin after epoch {self.epoch}")
        if epoch == self.epoch:
            return
        self._begun += [self.steps] * (epoch - max(0, self.epoch))
        self.sizes, self.steps = self.known, self._steps_of(self.known)
        self.epoch = epoch

    def steps_before(self, epoch: int) -> int:
        """Steps of all epochs before ``epoch``; those to come are as long as this one."""
        begun = self._begun[:epoch]
        return sum(begun) + self.steps * (epoch - len(begun))

    def state(self) -> State:
        """Plain values for a checkpoint."""
        changed = np.flatnonzero(self.known != self.sizes)
        return {
            "epoch": self.epoch,
            "sizes": self.sizes.tolist(),
            "found": [[int(part), int(self.known[part])] for part in changed],
            "steps_before": list(self._begun),
        }

    def load_state(self, state: State) -> None:
        """Take up what :meth:`state` returned; sizes that the files tell now do not count."""
        if len(state["sizes"]) != len(self.sizes):
            raise UserError(
                f"the checkpoint was made with data of {len(state['sizes'])} parts, found "
                f"{len(self.sizes)}: resume with the same data"
            )
        self.epoch = state["epoch"]
        self.sizes = self.known = np.array(state["sizes"], dtype=np.int64)
        self.learn(dict(state["found"]))
        self._begun = list(state["steps_before"])
        self.steps = self._steps_of(self.sizes)
