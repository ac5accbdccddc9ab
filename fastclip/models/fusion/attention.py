"""ICMLM's attention of a caption to a picture's grid, and a perceptron (att-fc)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionFusion(nn.Module):
    """A grid and a caption's states to a state that tells its masked word.

    Sariyildiz et al. 2020 (ICMLM_att-fc, arXiv 2008.01392); a reconstruction where the paper leaves
    its form open. Normalized projections of states and grid give scores by scaled dot products in
    several heads; softmaxes over the grid's places, their mean over heads, are a map that pools the
    grid. A perceptron of one hidden layer follows, whose output layer is the vocabulary's.

    Args:
        query: whose scores make the map: the masked word's state, or at each place the highest of
            all words' states.
        fuse: what the perceptron sees: the pooled grid alone, or with the masked word's state.

    ``forward(grid [b, P, grid_width], states [b, L, width], place int64 [b])`` gives
    [b, width]; states are zero at padding.
    """

    def __init__(
        self,
        grid_width: int,
        width: int,
        heads: int,
        query: Literal["mask", "all"] = "mask",
        fuse: Literal["visual", "concat"] = "visual",
    ):
        super().__init__()
        self.word_projection = nn.Linear(width, width)
        self.word_norm = nn.LayerNorm(width)
        self.grid_projection = nn.Linear(grid_width, width)
        self.grid_norm = nn.LayerNorm(width)
        self.fc = nn.Linear(grid_width + (width if fuse == "concat" else 0), width)
        self.width, self.heads, self.query, self.fuse = width, heads, query, fuse

    def forward(self, grid: Tensor, states: Tensor, place: Tensor) -> Tensor:
        seen = (self.attention(grid, states, place)[:, None] @ grid)[:, 0]
        if self.fuse == "concat":
            seen = torch.cat([seen, _at(states, place).to(seen.dtype)], 1)
        return F.gelu(self.fc(seen))

    def attention(self, grid: Tensor, states: Tensor, place: Tensor) -> Tensor:
        """The map that pools the grid, [b, P]; its rows sum to 1."""
        used = states.any(-1)[:, None, :, None]
        words = states if self.query == "all" else _at(states, place)[:, None]
        query = self._heads(self.word_norm(self.word_projection(words.to(grid.dtype))))
        key = self._heads(self.grid_norm(self.grid_projection(grid)))
        scores = query @ key.mT / query.shape[-1] ** 0.5  # [b, heads, 1 or L, P]
        if self.query == "all":
            scores = scores.masked_fill(~used, -torch.inf)
        return scores.amax(2).softmax(-1).mean(1).to(grid.dtype)

    def _heads(self, rows: Tensor) -> Tensor:
        """[b, n, width] to [b, heads, n, width / heads]."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _at(states: Tensor, place: Tensor) -> Tensor:
    """The states [b, width] at each caption's ``place``."""
    return states[torch.arange(len(place), device=place.device), place]
