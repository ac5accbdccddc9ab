"""Masked language modelling: hidden words of a caption foreseen from the picture and the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTION, MASK_SEED, PICTURE
from fastclip.data.text.bpe import BpeTokenizer
from fastclip.data.text.piece_masking import PieceMasking
from fastclip.models.masked_captioner import MaskedCaptioner
from fastclip.models.options import build_masked_captioner
from fastclip.models.piece_filler import PieceFiller
from fastclip.objectives.base import MicroBatch, Output, Parts
from fastclip.objectives.masking import MaskingOptions, mask_tokens
from fastclip.objectives.token_loss import token_sum
from fastclip.objectives.token_targets import last_places
from fastclip.objectives.virtex import VirTex


class MaskedTokens(nn.Module):
    """The cross entropy of a micro-batch's masked tokens, over the global batch's count."""

    def __init__(self, model: MaskedCaptioner, workspace_bytes: int):
        super().__init__()
        self.model = model
        self.workspace_bytes = workspace_bytes

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        grid = self.model.encode_grid(micro_batch["image"])
        hidden = self.model.hidden(grid, micro_batch["masked_text"], micro_batch["lengths"])
        rows = hidden.flatten(0, 1)[micro_batch["places"]]
        count = step["masked_tokens"]
        loss = token_sum(self.model.head, rows, micro_batch["targets"], count, self.workspace_bytes)
        return Output(sums={"masked_lm_loss": loss})


class MaskedLm(VirTex):
    """VirTex's masked language modelling: its decoder with every token seen by every other.

    Some tokens of a caption are hidden; those that became [MASK] are foreseen, and no other. The
    loss is the mean over the masked tokens of the global batch.
    """

    Options: ClassVar[type] = MaskingOptions
    name = "masked_lm"
    summary = "predict masked words of a caption from the picture's grid and the other words"
    paper = "Desai and Johnson 2021 (VirTex, masked language modelling), arXiv 2006.06666"
    fields = (PICTURE, CAPTION, MASK_SEED)
    fills_masks = True

    options: MaskingOptions
    model: MaskedCaptioner

    def build(self, parts: Parts) -> nn.Module:
        # A tokenizer's start and end are its last ids.
        self.pieces = parts.tokenizer.vocab_size - 2
        assert isinstance(parts.tokenizer, BpeTokenizer)
        masking = PieceMasking(parts.tokenizer)
        self.model = build_masked_captioner(
            parts.model, parts.tokenizer, masking, **self.options.of_decoder()
        )
        return MaskedTokens(self.model, parts.workspace_bytes)

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        own = sum(self._mask(micro_batch) for micro_batch in batch)
        return {"masked_tokens": ranks.total([own])[0]}

    def _mask(self, micro_batch: MicroBatch) -> int:
        """How many tokens are masked; leaves the masked text, its lengths and its targets."""
        text = micro_batch["text"]
        lengths = last_places(text, self.eot_id) + 1
        masked_text = text[:, : int(lengths.max())].clone()
        size = masked_text.shape[1]
        places: list[int] = []
        numbers = zip(lengths.tolist(), micro_batch["mask_seed"].tolist(), strict=True)
        for row, (length, seed) in enumerate(numbers):
            whole = masked_text[row, :length].tolist()
            hidden, masked = mask_tokens(whole, self.options, self.pieces, self.model.mask_id, seed)
            masked_text[row, :length] = torch.tensor(hidden)
            places += [row * size + place for place in masked]
        micro_batch["masked_text"], micro_batch["lengths"] = masked_text, lengths
        micro_batch["places"] = torch.tensor(places, dtype=torch.int64)
        micro_batch["targets"] = text[:, :size].flatten()[micro_batch["places"]]
        return len(places)

    def trained(self) -> dict[str, Any]:
        """What puts a word in the place of a mask."""
        return {"filler": PieceFiller(self.model)}
