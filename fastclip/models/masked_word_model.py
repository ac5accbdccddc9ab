"""An image tower, a fusion with a caption's states, and the heads that tell words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastclip.models.image_model import ImageModel, Sizes
from fastclip.models.lazy_text_encoder import LazyTextEncoder
from fastclip.models.linear_head import LinearHead
from fastclip.models.masking import MasksWords
from fastclip.models.tower import ImageTower
from fastclip.models.vocabulary_head import fp32_linear


class MaskedWordModel(ImageModel):
    """Pictures and captions with one word masked to that word (ICMLM), and pictures to tags.

    ``visual`` is what a user keeps: it has neither pooling nor projection, so
    :meth:`encode_image` gives the mean of the grid. The caption's states are those of a frozen
    BERT, ``text_encoder``, which is no module of the model and is opened where texts are given.

    Args:
        make_fusion: builds a module of :mod:`fastclip.models.fusion` for a grid's width.
        masking: which words are masked, and among how many they are sought.
    """

    def __init__(
        self,
        visual: ImageTower,
        make_fusion: Callable[[int], Any],
        masking: MasksWords,
        text_encoder: LazyTextEncoder,
        **sizes: Unpack[Sizes],
    ):
        super().__init__(visual, **sizes)
        self.fusion: nn.Module = make_fusion(visual.grid_width)
        self.word_head = LinearHead(self.fusion.width, masking.num_candidates)  # type: ignore[arg-type]
        self.tag_head = LinearHead(visual.grid_width, len(masking.names))
        self.masking = masking
        self.text_encoder = text_encoder

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are masked, which are the tags too."""
        return tuple(self.masking.names)

    @property
    def num_candidates(self) -> int:
        """Among how many a masked word is sought."""
        return self.masking.num_candidates

    def encode_grid(self, image: Tensor) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardized floats, to [b, P, grid_width]."""
        return self.visual.grid(self.pixels(image))

    def word_logits(self, grid: Tensor, states: Tensor, place: Tensor) -> Tensor:
        """Logits [b, candidates] (fp32) of the word at each caption's ``place``, int64 [b].

        Of a grid [b, P, grid_width], and the encoder's states [b, L, width] of captions with one
        ``[MASK]``, zero at padding.
        """
        return self.word_head(self.fusion(grid, states, place), fp32_linear)

    def fill_logits(self, image: Tensor, states: Tensor, place: Tensor) -> Tensor:
        """:meth:`word_logits` of pictures [b, 3, s, s]."""
        return self.word_logits(self.encode_grid(image), states, place)

    def attention(self, image: Tensor, states: Tensor, place: Tensor) -> Tensor:
        """How much the masked word looks at each place of the grid, [b, P]; as above."""
        return self.fusion.attention(self.encode_grid(image), states, place)  # type: ignore[operator]

    def tag_log_probs(self, image: Tensor) -> Tensor:
        """Log-probabilities [b, words] (fp32) of each word being a tag of the picture."""
        return F.logsigmoid(self.tag_head(self.encode_grid(image).mean(1), fp32_linear))

    def maskable(self, text: str) -> Sequence[Any]:
        """The words of a text that can be masked."""
        return self.masking.maskable(text)

    def foresee_masked(self, grid: Tensor, texts: Sequence[str], masked: Sequence[Any]) -> Tensor:
        """How many candidates are found as likely as each masked word, or likelier: int64 [b].

        ``grid`` [b, P, grid_width]; of every text one word of :meth:`maskable` is masked.
        """
        ids, places = self.masking.mask(texts, masked)
        states = self.text_encoder.states(ids.to(grid.device))
        logits = self.word_logits(grid, states, places.to(grid.device))
        own = logits.gather(1, torch.tensor([[m.number] for m in masked], device=grid.device))
        # Not `logits >= own`: what is not finite is never right.
        return (~(logits < own)).sum(1) - 1

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""
        self.visual.set_grad_checkpointing(enable)
