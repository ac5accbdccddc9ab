"""How each implementation is called: from a problem to a step.

A step takes a problem's inputs, runs forward and backward once, and returns the loss and the
gradients by input name. Only what an implementation's own users would run is in it: autocast where
it was made for that, no copies, no conversions. What is not imported at the top is optional.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.losses.problems import Problem

Inputs = dict[str, Tensor]
Step = Callable[[Inputs], dict[str, Tensor]]
Builder = Callable[[Problem], Step]


def differentiated(loss: Callable[..., Tensor], names: Sequence[str] | None = None) -> Step:
    """Call ``loss`` on the inputs by name; gradients of ``names``, or of all that want one."""

    def step(inputs: Inputs) -> dict[str, Tensor]:
        wanted = names or [name for name, leaf in inputs.items() if leaf.requires_grad]
        value = loss(**inputs)
        gradients = torch.autograd.grad(value, [inputs[name] for name in wanted])
        return {"loss": value, **dict(zip(wanted, gradients, strict=True))}

    return step


def amp(loss: Callable[..., Tensor], problem: Problem) -> Callable[..., Tensor]:
    """``loss`` under bf16 autocast where the problem is in bf16 and on a GPU, as amp_bf16 has it.

    The CPU part compares in the inputs' own dtype.
    """
    if problem.dtype != torch.bfloat16 or problem.device == "cpu":
        return loss

    def autocast(**inputs: Tensor) -> Tensor:
        with torch.autocast(problem.device, torch.bfloat16):
            return loss(**inputs)

    return autocast
