"""An output layer that takes a loss inside its forward pass."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class LinearHead(nn.Linear):
    """Features [..., width] to what a function makes of them, the weight [K, width] and the bias.

    ZeRO-3 keeps a matrix whole only inside the forward pass of a module that owns it. Hence a loss
    is taken there::

        head(features, lambda *layer: linear_cross_entropy(*layer, targets))
    """

    def forward(  # type: ignore[override]
        self, features: Tensor, function: Callable[[Tensor, Tensor, Tensor | None], Any] = F.linear
    ) -> Any:
        """``function(features, weight, bias)``; logits [..., K] where none is given."""
        return function(features, self.weight, self.bias)
