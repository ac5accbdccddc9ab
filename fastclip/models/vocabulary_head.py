"""The output layer of a language model, whose weight is its word embedding's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class VocabularyHead(nn.Module):
    """States [..., width] to what a function makes of them and the vocabulary's matrix.

    The weight [V, width] is the very parameter of ``embedding``; the bias [V] is the head's own.
    Register the head after the embedding: a state dict then holds the weight once, under the
    embedding's name, and loads strictly. The two stay tied through loading, casting and copying.

    ZeRO-3 keeps a matrix whole only inside the forward pass of a module that owns it. Hence the
    head owns the weight too, and takes a loss inside its forward::

        head(hidden, lambda *layer: linear_cross_entropy(*layer, targets))
    """

    weight: Tensor
    bias: nn.Parameter | None
    _embedding: nn.Embedding

    def __init__(self, embedding: nn.Embedding, bias: bool = True):
        super().__init__()
        # Not as a submodule: the embedding has its own place in the model.
        object.__setattr__(self, "_embedding", embedding)
        self.weight = embedding.weight
        count, width = self.weight.shape
        self.register_parameter("bias", nn.Parameter(torch.empty(count)) if bias else None)
        if self.bias is not None:  # as nn.Linear starts it
            nn.init.uniform_(self.bias, -(width**-0.5), width**-0.5)

    def forward(
        self, hidden: Tensor, function: Callable[[Tensor, Tensor, Tensor | None], Any] = F.linear
    ) -> Any:
        """``function(hidden, weight, bias)``; logits [..., V] where none is given."""
        return function(hidden, self.weight, self.bias)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        return self._tie()

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        del destination[prefix + "weight"]

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        name = prefix + "weight"
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if name in missing_keys:
            missing_keys.remove(name)
        self._tie()

    def _tie(self) -> "VocabularyHead":
        """Follow the embedding, which a move from the meta device may give another parameter."""
        if self.weight is not self._embedding.weight:
            self.weight = self._embedding.weight
        return self


def fp32_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits computed in fp32 whatever the inputs: 16 bits would tie words that are not."""
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(hidden.float(), weight.float(), None if bias is None else bias.float())
