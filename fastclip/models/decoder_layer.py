"""Causal transformer layers, with attention to a picture or without."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Attention(nn.Module):
    """Scaled dot-product attention of several heads (Vaswani et al. 2017).

    Every projection is a module of its own that is called: under ZeRO-3 a weight is whole only
    then, which ``nn.MultiheadAttention`` does not heed.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise ValueError(f"width is {width}, expected a multiple of the {heads} heads")
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.heads = heads
        self.dropout = dropout

    def forward(
        self, states: Tensor, memory: Tensor, mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """States [b, L, width] that look at a memory [b, K, width], to [b, L, width].

        ``mask`` (bool, broadcast to [b, heads, L, K]) is true where a state may look.
        """
        query, key, value = (
            self._heads(projection(x))
            for projection, x in (
                (self.q_proj, states),
                (self.k_proj, memory),
                (self.v_proj, memory),
            )
        )
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal)
        return self.out_proj(seen.transpose(1, 2).flatten(2))

    def weights(self, states: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each state looks at each place of the memory, [b, heads, L, K]; as above."""
        query, key = self._heads(self.q_proj(states)), self._heads(self.k_proj(memory))
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1)

    def _heads(self, rows: Tensor) -> Tensor:
        """[b, n, width] to [b, heads, n, width / heads]."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Self-attention, attention to a memory where there is one, a perceptron: each a residual.

    ``pre_norm`` puts the LayerNorms before the three, as CLIP does; else behind the sums, as in
    Vaswani et al. 2017.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float = 0.0,
        pre_norm: bool = True,
        cross_attention: bool = True,
    ):
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.self_norm = nn.LayerNorm(width)
        if cross_attention:
            self.cross_attention = Attention(width, heads, dropout)
            self.cross_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(
        self, states: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """States [b, L, width] and a memory [b, K, width] to [b, L, width].

        A state looks at itself and those before it, or where ``mask`` (bool, broadcast to
        [b, heads, L, L]) is true.
        """

        def look(x: Tensor) -> Tensor:
            return self.self_attention(x, x, mask, is_causal=mask is None)

        states = self._residual(states, self.self_norm, look)
        if memory is not None:
            states = self._residual(
                states, self.cross_norm, lambda x: self.cross_attention(x, memory)
            )
        return self._residual(states, self.mlp_norm, self._perceptron)

    def _perceptron(self, states: Tensor) -> Tensor:
        return self.fc2(self.dropout(F.gelu(self.fc1(states))))

    def _residual(
        self, states: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if self.pre_norm:
            return states + self.dropout(part(norm(states)))
        return norm(states + self.dropout(part(states)))


class DecoderStack(nn.Module):
    """Several :class:`DecoderLayer`; after pre-norm ones a LayerNorm, unless ``final_norm`` is off.

    Called as one layer is.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        dropout: float = 0.0,
        pre_norm: bool = True,
        cross_attention: bool = True,
        final_norm: bool = True,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(
                width, heads, dropout=dropout, pre_norm=pre_norm, cross_attention=cross_attention
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width) if pre_norm and final_norm else nn.Identity()
        self.checkpointed = False

    def forward(
        self, states: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        for layer in self.layers:
            if self.checkpointed:
                states = checkpoint(layer, states, memory, mask, use_reentrant=False)
            else:
                states = layer(states, memory, mask)
        return self.norm(states)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of layers only, and recompute their activations in the backward pass."""
        self.checkpointed = enable
