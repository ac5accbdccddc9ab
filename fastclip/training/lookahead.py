"""Lookahead round another optimizer, on whatever weights that one is given.

Zhang, Lucas, Hinton and Ba, "Lookahead Optimizer: k steps forward, 1 step back" (arXiv 1907.08610).
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

SLOW, STEP = "slow_weights", "lookahead_step"


class Lookahead(Optimizer):
    """Every ``k`` steps of ``optimizer``: ``slow += alpha * (fast - slow)``, then ``fast = slow``.

    The fast weights are the parameters; the slow ones start as the parameters before the first
    step, in their dtype. Under DeepSpeed the parameters are this rank's fp32 partitions, so each
    rank keeps the slow weights of its own partitions.

    Groups and state are the wrapped optimizer's own. A parameter's state has two more entries,
    which ``state_dict`` holds as it holds momentum: ``slow_weights``, of the parameter's shape, and
    ``lookahead_step``, the number of steps taken. The number is kept by parameter because DeepSpeed
    steps one partition at a time: a call of :meth:`step` sees some of the parameters only.

    A parameter without a gradient has not moved and needs no slow weights; when it gets its first
    gradient it joins at the number of steps that the others have taken.

    Raises:
        ValueError: ``k`` below 1, or ``alpha`` outside (0, 1].
    """

    def __init__(self, optimizer: Optimizer, k: int, alpha: float = 0.5):
        if k < 1:
            raise ValueError(f"k is {k}, expected 1 or more")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is {alpha}, expected 0 < alpha <= 1")
        self.optimizer, self.k, self.alpha = optimizer, k, alpha
        state = optimizer.state
        # Empties the groups and the state, which are the wrapped optimizer's, and adds the groups.
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.state = state

    # DeepSpeed replaces the groups around each step, and their parameters by partitions: both
    # optimizers must see the same.
    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:  # type: ignore[override]
        return self.optimizer.state

    @state.setter
    def state(self, state: defaultdict[Tensor, Any]) -> None:
        self.optimizer.state = state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What ``load_state_dict`` ends with; the wrapped optimizer completes its own groups."""
        self.optimizer.__setstate__(state)

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weights = [weight for group in self.param_groups for weight in group["params"]]
        # AdamW takes a weight that has any state for one that it has met, so that the slow weights
        # enter the state after its step.
        starts = {w: w.clone() for w in weights if w.grad is not None and not self._follows(w)}
        self.optimizer.step()
        for weight, start in starts.items():
            self.state[weight][SLOW] = start
        followed = [weight for weight in weights if self._follows(weight)]
        step = 1 + max((self.state[weight].get(STEP, 0) for weight in followed), default=0)
        for weight in followed:
            self.state[weight][STEP] = step
            if step % self.k == 0:
                weight.copy_(self.state[weight][SLOW].lerp_(weight, self.alpha))
        return loss

    def _follows(self, weight: Tensor) -> bool:
        return SLOW in self.state.get(weight, ())
