"""ICMLM's transformer over a picture's grid and a caption's states (tfm)."""

from typing import Any

import torch
from torch import Tensor, nn

from fastclip.models.fusion.encoder_layer import EncoderLayer


class TransformerFusion(nn.Module):
    """A grid and a caption's states to the state of its masked word.

    Sariyildiz et al. 2020 (ICMLM_tfm, arXiv 2008.01392): the grid is projected to the states'
    width, both are told apart by a learned segment, and encoder layers run over them together. Only
    the masked word's row leaves the last layer, so no other is computed there.

    ``forward(grid [b, P, grid_width], states [b, L, width], place int64 [b])`` gives
    [b, width]; states are zero at padding.
    """

    def __init__(self, grid_width: int, width: int, layers: int, heads: int):
        super().__init__()
        self.grid_projection = nn.Linear(grid_width, width)
        self.grid_norm = nn.LayerNorm(width)
        self.segments = nn.Embedding(2, width)
        self.layers = nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.width = width

    def forward(self, grid: Tensor, states: Tensor, place: Tensor) -> Tensor:
        query, joined, used = self._before_last(grid, states, place)
        return self.layers[-1](query, joined, used)[:, 0]

    def attention(self, grid: Tensor, states: Tensor, place: Tensor) -> Tensor:
        """How much the masked word looks at each place of the grid in the last layer, [b, P].

        The mean over heads; a row's sum is what it leaves to the grid of its attention, which goes
        to words too.
        """
        query, joined, used = self._before_last(grid, states, place)
        last: Any = self.layers[-1]
        weights = last.attention.weights(query, joined, used)
        return weights[:, :, 0, : grid.shape[1]].mean(1)

    def _before_last(
        self, grid: Tensor, states: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The masked word's row [b, 1, width], all rows [b, P + L, width], and which are used."""
        used = torch.cat([states.new_ones(grid.shape[:2], dtype=torch.bool), states.any(-1)], 1)
        used = used[:, None, None]
        segments = self.segments(torch.arange(2, device=grid.device))
        grid = self.grid_norm(self.grid_projection(grid))
        joined = torch.cat([grid + segments[0], states.to(grid.dtype) + segments[1]], 1)
        for layer in self.layers[:-1]:
            joined = layer(joined, joined, used)
        rows = torch.arange(len(place), device=place.device)
        return joined[rows, place + grid.shape[1]][:, None], joined, used
