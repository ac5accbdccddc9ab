"""The captions that a model writes for a split."""

from __future__ import annotations

import torch
from torch import Tensor

from fastclip.data.splits import Split
from fastclip.evals.base import Subject
from fastclip.models.caption_writer import BEAMS, write_tokens

_KEPT = "captions"


def written_captions(subject: Subject, split: Split) -> list[str]:
    """:func:`write_captions`, once for all evaluations of a split."""
    of, captions = subject.kept.get(_KEPT, (None, []))
    if of is not split:
        captions = write_captions(subject, split)
        subject.kept[_KEPT] = split, captions
    return captions


def write_captions(subject: Subject, split: Split, beams: int = BEAMS) -> list[str]:
    """A caption for every picture; every rank must call, and takes as many steps."""
    model, tokenizer, device = subject.model, subject.tokenizer, subject.ranks.device

    def write(pictures: Tensor, _: Tensor) -> Tensor:
        return write_tokens(model, tokenizer, pictures.to(device), _nothing_right, beams)

    found = subject.over_pictures(split, write)
    return [tokenizer.decode(row) for row in found.tolist()]


def _nothing_right(log_probs: Tensor) -> Tensor:
    """A model that is not finite writes nothing right, and takes as many steps as the others."""
    return log_probs.masked_fill(log_probs.isnan(), -torch.inf)
