"""The update of an objective's own scalars, which DeepSpeed never sees."""

from typing import Any

from torch import nn

from fastclip.comm.ranks import Ranks
from fastclip.training import gradients, optimizers
from fastclip.training.options.optim import OptimConfig
from fastclip.training.schedules import Schedule


class ScalarsOptimizer:
    """Replicated fp32 parameters under the run's optimizer, without weight decay.

    ``module`` None has no parameters, and every call is one that does nothing.
    """

    def __init__(self, module: nn.Module | None, options: OptimConfig, ranks: Ranks):
        self.module, self.ranks = module, ranks
        self.optimizer = None
        if module is not None:
            module.to(ranks.device)
            group = {"params": list(module.parameters()), "weight_decay": 0.0}
            self.optimizer = optimizers.build_optimizer([group], options)

    def begin_step(self, schedule: Schedule, step: int) -> None:
        """Set the rate and forget the last step's gradients."""
        if self.optimizer is not None:
            optimizers.set_learning_rate(self.optimizer, schedule, step)
            self.optimizer.zero_grad(set_to_none=True)

    def average_gradients(self) -> None:
        """Make the gradients those of the global batch, the same on every rank."""
        if self.module is not None:
            gradients.average_gradients(self.module, self.ranks.world_size)

    def step(self, clip_factor: float) -> None:
        """Scale the averaged gradients as the network's were clipped, and step."""
        if self.module is None or self.optimizer is None:
            return
        for parameter in self.module.parameters():
            if parameter.grad is not None:
                parameter.grad *= clip_factor
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """Parameters and the optimizer's state, for a checkpoint."""
        if self.module is None or self.optimizer is None:
            return {}
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` returned."""
        if self.module is not None and self.optimizer is not None:
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
