"""One masked word a caption, and its cross entropy beside that of tags."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fastclip.comm.ranks import Ranks
from fastclip.data.text.tag_words import Found
from fastclip.loss import linear_cross_entropy
from fastclip.models.masked_word_model import MaskedWordModel
from fastclip.objectives.base import MicroBatch, Output
from fastclip.objectives.tag_targets import tag_sum


class MaskedWordLosses(nn.Module):
    """Cross entropies of masked words and of tags, over the global batch's counts."""

    def __init__(self, model: MaskedWordModel, tag_weight: float, workspace_bytes: int):
        super().__init__()
        self.model = model
        self.tag_weight = tag_weight
        self.workspace_bytes = workspace_bytes

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        model, count = self.model, step["masked_words"]
        grid = model.encode_grid(micro_batch["image"])
        rows, places = micro_batch["masked_rows"], micro_batch["masked_places"]
        hidden = model.fusion(grid[rows], given["states"], places)
        take = partial(_words_loss, micro_batch["masked_words"], self.workspace_bytes)
        words = model.word_head(hidden, take) * (1 / count if count else 0.0)
        tags = tag_sum(
            model.tag_head, grid.mean(1), micro_batch, step["pictures"], self.workspace_bytes
        )
        return Output(sums={"masked_word_loss": words, "tag_loss": self.tag_weight * tags})


def _words_loss(
    targets: Tensor, workspace_bytes: int, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    return linear_cross_entropy(
        hidden, weight, targets, bias, reduction="sum", workspace_bytes=workspace_bytes
    )


def mask_captions(batch: Sequence[MicroBatch], model: MaskedWordModel, ranks: Ranks) -> float:
    """Masked words of the global batch: one of each caption that has any, drawn by its seed.

    Leaves in each micro-batch, of its m captions with a masked word, ``masked_rows`` (places of
    their pictures), ``masked_places`` and ``masked_words`` (the right candidates), int64 ``[m]``,
    and for ``text`` their masked ids, int64 ``[m, L]``.
    """
    own = 0
    for micro_batch in batch:
        rows: list[int] = []
        masked: list[Found] = []
        seeds = micro_batch["mask_seed"].tolist()
        for row, (text, seed) in enumerate(zip(micro_batch["said"], seeds, strict=True)):
            if found := model.maskable(text):
                rows.append(row)
                masked.append(random.Random(seed).choice(found))
        texts = [micro_batch["said"][row] for row in rows]
        micro_batch["text"], micro_batch["masked_places"] = model.masking.mask(texts, masked)
        micro_batch["masked_rows"] = torch.tensor(rows, dtype=torch.int64)
        numbers = [word.number for word in masked]
        micro_batch["masked_words"] = torch.tensor(numbers, dtype=torch.int64)
        own += len(rows)
    return ranks.total([own])[0]
