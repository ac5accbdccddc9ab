"""What an image or text tower offers."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Tower(nn.Module, ABC):
    """A batch of pictures or texts to features [b, embed_dim], not normalised."""

    @abstractmethod
    def forward(self, batch: Tensor) -> Tensor:
        """Pictures [b, 3, s, s] (standardised) or token ids [b, L] (int64) to [b, embed_dim]."""

    @abstractmethod
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""


def set_transformer_checkpointing(transformer: Any, enable: bool) -> None:
    """``set_grad_checkpointing`` for a model of transformers."""
    # transformers renames the two methods in the course of version 5.
    verb = "enable" if enable else "disable"
    switch = getattr(transformer, f"activation_checkpointing_{verb}", None)
    switch = switch or getattr(transformer, f"gradient_checkpointing_{verb}")
    switch(*([{"use_reentrant": False}] if enable else []))
