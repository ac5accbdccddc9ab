"""Captioning: predict each word of a caption from the picture and the words before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from fastclip.comm.ranks import Ranks
from fastclip.models.captioner import Captioner
from fastclip.models.options import build_captioner
from fastclip.objectives.base import MicroBatch, Output, Parts
from fastclip.objectives.token_loss import token_sum
from fastclip.objectives.token_targets import count_next_tokens
from fastclip.objectives.virtex import VirTex


class CaptionTokens(nn.Module):
    """The cross entropy of every caption token of a micro-batch, over the global batch's count."""

    def __init__(self, model: Captioner, workspace_bytes: int):
        super().__init__()
        self.model = model
        self.workspace_bytes = workspace_bytes

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        grid = self.model.encode_grid(micro_batch["image"])
        hidden = self.model.hidden(grid, micro_batch["text"][:, :-1])
        rows = hidden.flatten(0, 1)[micro_batch["places"]]
        count = step["caption_tokens"]
        loss = token_sum(self.model.head, rows, micro_batch["targets"], count, self.workspace_bytes)
        return Output(sums={"caption_loss": loss})


class Captioning(VirTex):
    """Forward captioning, as VirTex has it beside its bidirectional form.

    The loss is the mean over the tokens of the global batch.
    """

    name = "captioning"
    summary = "predict a caption's words from the picture's grid and the words before"
    paper = "Desai and Johnson 2021 (VirTex, forward captioning), arXiv 2006.06666"
    writes_captions = True

    model: Captioner

    def build(self, parts: Parts) -> nn.Module:
        self.model = build_captioner(parts.model, parts.tokenizer, **self.options.of_decoder())
        return CaptionTokens(self.model, parts.workspace_bytes)

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        return {"caption_tokens": count_next_tokens(batch, self.eot_id, ranks)}
