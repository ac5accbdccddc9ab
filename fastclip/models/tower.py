"""What an image or text tower offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

LayerGroup = Sequence[nn.Module | nn.Parameter]


class Tower(nn.Module, ABC):
    """A batch of pictures or texts to features [b, embed_dim], not normalized."""

    @abstractmethod
    def forward(self, batch: Tensor) -> Tensor:
        """Pictures [b, 3, s, s] (standardized) or token ids [b, L] (int64) to [b, embed_dim]."""

    @abstractmethod
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""

    @abstractmethod
    def layer_groups(self) -> list[LayerGroup]:
        """Modules and parameters from input to output, in the groups that locking counts."""


class ImageTower(Tower):
    """A tower whose features are pooled from a grid: one vector a place of the picture.

    A subclass says how pictures become the trunk's last states, and what is read from these. With
    ``embed_dim`` None it is built without pooling and projection, for models that read the grid
    alone; its features then are the grid's mean, [b, grid_width].
    """

    grid_width: int
    grid_positions: int | None = None
    """None where it depends on the side of the picture."""

    def __init__(self, embed_dim: int | None):
        super().__init__()
        self.embed_dim = embed_dim

    @abstractmethod
    def _last_states(self, batch: Tensor) -> Any:
        """What the trunk makes of pictures [b, 3, s, s], before pooling."""

    @abstractmethod
    def _pooled(self, states: Any) -> Tensor:
        """Features [b, embed_dim] of the last states; never called where there is no embed_dim."""

    @abstractmethod
    def _positions(self, states: Any) -> Tensor:
        """The grid [b, positions, grid_width] in the last states."""

    def forward(self, batch: Tensor) -> Tensor:
        """Pictures [b, 3, s, s] (standardized) to features [b, embed_dim]."""
        return self._features(self._last_states(batch))

    def grid(self, batch: Tensor) -> Tensor:
        """Pictures [b, 3, s, s] to the grid [b, positions, grid_width], rows of places first."""
        return self._positions(self._last_states(batch))

    def features_and_grid(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` and :meth:`grid` give, from one pass of the trunk."""
        states = self._last_states(batch)
        return self._features(states), self._positions(states)

    def _features(self, states: Any) -> Tensor:
        if self.embed_dim is None:
            return self._positions(states).mean(1)
        return self._pooled(states)


def set_transformer_checkpointing(transformer: Any, enable: bool) -> None:
    """``set_grad_checkpointing`` for a model of transformers."""
    # transformers renames the two methods in the course of version 5.
    verb = "enable" if enable else "disable"
    switch = getattr(transformer, f"activation_checkpointing_{verb}", None)
    switch = switch or getattr(transformer, f"gradient_checkpointing_{verb}")
    switch(*([{"use_reentrant": False}] if enable else []))
