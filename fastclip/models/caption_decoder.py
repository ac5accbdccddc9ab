"""VirTex's textual head: a transformer that predicts a caption from a grid of image features."""

import copy

import torch
from torch import Tensor, nn

from fastclip.models.decoder_layer import Attention, DecoderStack
from fastclip.models.vocabulary_head import VocabularyHead


class CaptionDecoder(nn.Module):
    """A grid [b, P, grid_width] and tokens [b, L] to hidden states [b, L, width].

    Desai & Johnson 2021 (VirTex, arXiv 2006.06666): the grid is projected linearly, words and
    learned positions are summed and normalized, causal layers attend to the grid, and ``head``
    turns their states into logits by the word embedding's own matrix and a bias. State i has seen
    tokens 0 to i, so padding behind the end of a text changes nothing before it.

    ``bidirectional`` adds ``backward_layers``, which start as a copy of the layers and read texts
    from their end; projection, embedding and head are shared. ``pad_id`` names an id that is never
    a word: its embedding starts at zero and lookups leave it there.
    """

    def __init__(
        self,
        vocab_size: int,
        grid_width: int,
        width: int,
        layers: int,
        heads: int,
        context_length: int,
        dropout: float = 0.1,
        *,
        pad_id: int | None = None,
        pre_norm: bool = False,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.grid_projection = nn.Linear(grid_width, width)
        self.embedding = WordEmbedding(vocab_size, width, context_length, dropout, pad_id)
        self.layers = DecoderStack(width, layers, heads, dropout=dropout, pre_norm=pre_norm)
        self.apply(_initialize)
        self.backward_layers = copy.deepcopy(self.layers) if bidirectional else None
        self.head = VocabularyHead(self.embedding.words)

    def forward(
        self, grid: Tensor, tokens: Tensor, backward: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        """``backward`` takes the layers for reversed texts: tokens [b, L] start at the end.

        ``mask`` (bool, broadcast to [b, heads, L, L]) is true where a state may look, in place of
        at itself and those before it.
        """
        layers = self.backward_layers if backward else self.layers
        if layers is None:
            raise ValueError("the decoder was built without bidirectional=True")
        return layers(self.embedding(tokens), self.grid_projection(grid), mask)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of layers only, and recompute their activations in the backward pass."""
        self.layers.set_grad_checkpointing(enable)
        if self.backward_layers is not None:
            self.backward_layers.set_grad_checkpointing(enable)


class WordEmbedding(nn.Module):
    """Token ids [b, L] to the normalized sum of word and position, [b, L, width]."""

    def __init__(
        self, vocab_size: int, width: int, context_length: int, dropout: float, pad_id: int | None
    ):
        super().__init__()
        self.words = nn.Embedding(vocab_size, width, padding_idx=pad_id)
        self.positions = nn.Embedding(context_length, width)
        # The sum starts with a variance of 8e-4, beside which the usual 1e-5 would show.
        self.norm = nn.LayerNorm(width, eps=1e-8)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        length, longest = tokens.shape[1], self.positions.num_embeddings
        if length > longest:
            raise ValueError(f"a text has {length} tokens, the decoder takes {longest} at most")
        positions = self.positions(torch.arange(length, device=tokens.device))
        return self.dropout(self.norm(self.words(tokens) + positions))


@torch.no_grad()
def _initialize(module: nn.Module) -> None:
    """Weights from N(0, 0.02); biases as torch starts them, those of attention at zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])
    if isinstance(module, Attention):
        for projection in (module.q_proj, module.k_proj, module.v_proj, module.out_proj):
            nn.init.zeros_(projection.bias)
