"""CoCa: one model that embeds pictures and texts and writes captions."""

from typing import Unpack

import torch
from torch import Tensor, nn

from fastclip.models.decoder_layer import DecoderStack
from fastclip.models.image_model import ImageModel, Sizes, unit_norm
from fastclip.models.initialize import initialize_blocks_
from fastclip.models.tower import ImageTower, LayerGroup, Tower
from fastclip.models.vocabulary_head import VocabularyHead, fp32_linear


class CoCa(ImageModel):
    """Contrastive captioner of Yu et al. 2022 (arXiv 2205.01917).

    The first half of the text's layers never sees the picture: a class token behind the text gives
    the contrastive feature. The second half reads the first half's states and attends to the
    image's grid: its states are the captioner's.

    The image's contrastive feature is the tower's own pooled projection, and the captioner attends
    to the whole grid: the two stand for the paper's attentional poolers.
    """

    def __init__(
        self,
        visual: ImageTower,
        text: "UnimodalText",
        **sizes: Unpack[Sizes],
    ):
        super().__init__(visual, **sizes)
        self.text = text
        self.multimodal = MultimodalDecoder(
            visual.grid_width, text.width, len(text.layers.layers), text.heads
        )
        self.head = VocabularyHead(text.words)
        self.embed_dim = text.projection.out_features

    def forward(self, image: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of both ([b, D], unit norm) and the captioner's hidden states [b, L, width].

        Takes pictures [b, 3, s, s], uint8 or standardized floats, and token ids [b, L] (int64).
        """
        image_features, grid = self.visual.features_and_grid(self.pixels(image))
        text_features, states = self.text.features_and_states(tokens)
        hidden = self.multimodal(states, grid)
        return unit_norm(image_features), unit_norm(text_features), hidden

    def features(self, image: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The two features that forward gives, from the same random draws."""
        return self.encode_image(image), self.encode_text(tokens)

    def encode_text(self, tokens: Tensor, normalize: bool = True) -> Tensor:
        """Token ids [b, L] (int64) to features [b, D]."""
        features = self.text(tokens)
        return unit_norm(features) if normalize else features

    def encode_grid(self, image: Tensor) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardized floats, to [b, P, grid_width]."""
        return self.visual.grid(self.pixels(image))

    def hidden(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """A grid [b, P, grid_width] and tokens [b, L] to hidden states [b, L, width]."""
        return self.multimodal(self.text.states(tokens), grid)

    def next_token_logits(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """Logits [b, V] (fp32) of the token that follows tokens [b, L]."""
        return self.head(self.hidden(grid, tokens)[:, -1], fp32_linear)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""
        self.visual.set_grad_checkpointing(enable)
        self.text.set_grad_checkpointing(enable)
        self.multimodal.layers.set_grad_checkpointing(enable)


class UnimodalText(Tower):
    """Token ids [b, L] (int64) to features [b, embed_dim], not normalized, and to states.

    Tokens see those before them. A class token behind them sees itself and the tokens up to the
    first ``eot_id``; no token sees it, so that states are the same with and without it.
    """

    def __init__(
        self,
        vocab_size: int,
        eot_id: int,
        context_length: int,
        embed_dim: int,
        width: int,
        layers: int,
        heads: int,
    ):
        super().__init__()
        self.words = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context_length, width)
        # A module, not a parameter: under ZeRO-3 it must be whole outside this one's forward too.
        self.class_token = nn.Embedding(1, width)
        self.layers = DecoderStack(width, layers, heads, cross_attention=False, final_norm=False)
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embed_dim, bias=False)
        self.eot_id, self.width, self.heads = eot_id, width, heads
        initialize_blocks_(self.layers, width, layers)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.01)
        nn.init.normal_(self.class_token.weight, std=0.01)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, batch: Tensor) -> Tensor:
        return self.features_and_states(batch)[0]

    def features_and_states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Features [b, embed_dim] and the tokens' states [b, L, width] from one pass."""
        class_token = self.class_token(tokens.new_zeros(len(tokens), 1))
        states = torch.cat([self._embedded(tokens), class_token], 1)
        states = self.layers(states, mask=self._mask(tokens))
        return self.projection(self.norm(states[:, -1])), states[:, :-1]

    def states(self, tokens: Tensor) -> Tensor:
        """The tokens' states [b, L, width], without the class token."""
        return self.layers(self._embedded(tokens))

    def _embedded(self, tokens: Tensor) -> Tensor:
        length, longest = tokens.shape[1], self.positions.num_embeddings
        if length > longest:
            raise ValueError(f"a text has {length} tokens, the model takes {longest} at most")
        return self.words(tokens) + self.positions(torch.arange(length, device=tokens.device))

    def _mask(self, tokens: Tensor) -> Tensor:
        """Which of [L tokens and the class token] each of them may see: bool [b, 1, L+1, L+1]."""
        ends = tokens.eq(self.eot_id)
        real = ends.cumsum(1) - ends.long() == 0  # no end before this token
        size = tokens.shape[1] + 1
        mask = torch.ones(len(tokens), 1, size, size, dtype=torch.bool, device=tokens.device).tril()
        mask[:, 0, -1, :-1] = real
        return mask

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.layers.set_grad_checkpointing(enable)

    def layer_groups(self) -> list[LayerGroup]:
        # The words are CoCa's output matrix too: locked, they stand still on both sides.
        *blocks, last = self.layers.layers
        return [
            [self.words, self.positions, self.class_token],
            *([block] for block in blocks),
            [last, self.norm],
            [self.projection],
        ]


class MultimodalDecoder(nn.Module):
    """States of a text [b, L, width] that look at a grid [b, P, grid_width], to [b, L, width]."""

    def __init__(self, grid_width: int, width: int, layers: int, heads: int):
        super().__init__()
        self.grid_projection = nn.Linear(grid_width, width)
        self.grid_norm = nn.LayerNorm(width)
        self.layers = DecoderStack(width, layers, heads)
        initialize_blocks_(self.layers, width, layers)
        nn.init.normal_(self.grid_projection.weight, std=grid_width**-0.5)
        nn.init.zeros_(self.grid_projection.bias)

    def forward(self, states: Tensor, grid: Tensor) -> Tensor:
        return self.layers(states, self.grid_norm(self.grid_projection(grid)))
