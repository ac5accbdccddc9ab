"""From some records to the columns of one micro-batch, the same streamed and in memory."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastclip.data.captions import CaptionConfig, vary
from fastclip.data.old_fields import CAPTION, LABEL, TAGS, Field
from fastclip.data.records import Facts
from fastclip.data.seeding import derived_seed
from fastclip.data.text.interface import Tokenizer


@dataclass(frozen=True)
class Collate:
    """Makes every column of ``fields`` but the picture's, and ``key``, ``caption`` and ``said``.

    Labels are a column wherever all records have one.
    """

    fields: tuple[Field, ...]
    tokenizer: Tokenizer
    captions: CaptionConfig

    def __call__(
        self, facts: Sequence[Facts], place: tuple[int, ...], tokens: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """Columns of ``facts``; what varies is drawn from ``place``.

        ``tokens`` int64 [b, L] are those of captions that never vary, where they are known.
        """
        columns: dict[str, Any] = {"key": [f.key for f in facts]}
        columns["caption"] = said = [f.caption for f in facts]
        if not self.captions.fixed:
            rng = random.Random(derived_seed(*place))
            said = [vary(f.caption, f.tags, rng, self.captions) for f in facts]
        columns["said"] = said
        if CAPTION in self.fields:
            columns[CAPTION.column] = self.tokenizer(said) if tokens is None else tokens
        if TAGS in self.fields:
            columns[TAGS.column] = [f.tags for f in facts]
        labels = [f.label for f in facts]
        if None not in labels:
            columns[LABEL.column] = torch.tensor(labels, dtype=torch.int64)
        return columns
