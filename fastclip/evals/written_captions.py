"""The captions that a model writes for a split."""

from __future__ import annotations

import torch
from torch import Tensor

from fastclip.data.splits import Split
from fastclip.evals.base import Subject
from fastclip.models.beams import beam_search

BEAMS = 5
WRITES = ("encode_grid", "next_token_logits")
"""Methods of a model that writes captions."""
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
        grid = model.encode_grid(pictures.to(device))

        def next_log_probs(tokens: Tensor, rows: Tensor) -> Tensor:
            log_probs = model.next_token_logits(grid[rows], tokens).float().log_softmax(-1)
            # A model that is not finite writes nothing right, and as many steps as the others.
            return log_probs.masked_fill(log_probs.isnan(), -torch.inf)

        tokens, _ = beam_search(
            next_log_probs,
            rows=len(pictures),
            start_id=tokenizer.sot_id,
            end_id=tokenizer.eot_id,
            max_length=tokenizer.context_length,
            beams=beams,
            **getattr(model, "beam_options", {}),
            device=device,
        )
        return tokens

    found = subject.over_pictures(split, write)
    return [tokenizer.decode(row) for row in found.tolist()]
