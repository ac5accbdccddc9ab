"""Bicaptioning: a caption's words foreseen from those before, and from those behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fastclip.comm.ranks import Ranks
from fastclip.models.captioner import Captioner
from fastclip.models.options import build_captioner
from fastclip.objectives.base import MicroBatch, Output, Parts
from fastclip.objectives.token_loss import token_sum
from fastclip.objectives.token_targets import count_next_tokens, reversed_texts
from fastclip.objectives.virtex import VirTex


class BothDirections(nn.Module):
    """The sum of the two directions' cross entropies, each over the global batch's count.

    A text has as many targets backward as forward, in the same places. So the rows of both, which
    share the output layer, go through it in one pass over the vocabulary.
    """

    def __init__(self, model: Captioner, workspace_bytes: int):
        super().__init__()
        self.model = model
        self.workspace_bytes = workspace_bytes

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        grid = self.model.encode_grid(micro_batch["image"])
        places, texts = micro_batch["places"], (micro_batch["text"], micro_batch["backward_text"])
        hidden = [
            self.model.hidden(grid, text[:, :-1], backward).flatten(0, 1)[places]
            for text, backward in zip(texts, (False, True), strict=True)
        ]
        targets = [text[:, 1:].flatten()[places] for text in texts]
        count = step["caption_tokens"]
        loss = token_sum(
            self.model.head, torch.cat(hidden), torch.cat(targets), count, self.workspace_bytes
        )
        return Output(sums={"caption_loss": loss})


class Bicaptioning(VirTex):
    """VirTex's main task: one transformer reads a caption forward, another one backward.

    The loss is the sum of the two directions' means over the tokens of the global batch.
    """

    name = "bicaptioning"
    summary = "predict a caption's words from the picture's grid, forward and backward"
    paper = "Desai and Johnson 2021 (VirTex), arXiv 2006.06666"
    writes_captions = True

    model: Captioner

    def build(self, parts: Parts) -> nn.Module:
        self.model = build_captioner(
            parts.model, parts.tokenizer, bidirectional=True, **self.options.of_decoder()
        )
        return BothDirections(self.model, parts.workspace_bytes)

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        count = count_next_tokens(batch, self.eot_id, ranks)
        for micro_batch in batch:
            micro_batch["backward_text"] = reversed_texts(micro_batch["text"], self.eot_id)
        return {"caption_tokens": count}
