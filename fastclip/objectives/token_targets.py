"""Which token follows each token of a caption, either way, for objectives that predict words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastclip.comm.ranks import Ranks
from fastclip.errors import UserError
from fastclip.objectives.base import MicroBatch, Parts


class NextTokens(NamedTuple):
    """Places of a micro-batch's caption tokens that have a successor, and those successors.

    ``places`` int64 ``[t]`` index the rows of hidden states ``[b, L - 1, width]`` flattened to
    ``[b · (L - 1), width]``; ``targets`` int64 ``[t]``. ``length`` is the most tokens a caption of
    the micro-batch has: what lies beyond it is padding in every row.
    """

    places: Tensor
    targets: Tensor
    length: int


def next_tokens(text: Tensor, eot_id: int) -> NextTokens:
    """Targets of ``text`` int64 ``[b, L]``: every token but the first, up to the first end.

    Padding is known by its place after the end alone: its id may be a word's too.
    """
    last = last_places(text, eot_id)
    length = int(last.max()) + 1 if len(text) else 1
    used = torch.arange(1, length) <= last[:, None]
    places = used.flatten().nonzero()[:, 0]
    return NextTokens(places, text[:, 1:length].flatten()[places], length)


def last_places(text: Tensor, eot_id: int) -> Tensor:
    """The place of each text's first end, int64 ``[b]``; the last one's of a text without."""
    ends = text.eq(eot_id)
    return torch.where(ends.any(1), ends.int().argmax(1), text.shape[1] - 1)


def reversed_texts(text: Tensor, eot_id: int) -> Tensor:
    """Each text of ``text`` int64 ``[b, L]`` from its end to its start, its padding still behind.

    A text that was cut without an end starts with its last token.
    """
    places = torch.arange(text.shape[1])
    mirrored = last_places(text, eot_id)[:, None] - places
    return text.gather(1, torch.where(mirrored < 0, places, mirrored))


def count_next_tokens(batch: Sequence[MicroBatch], eot_id: int, ranks: Ranks) -> float:
    """Targets of the global batch; leaves each micro-batch's own in ``places`` and ``targets``.

    Columns of ``text`` that are padding in every row are cut off.
    """
    own = 0
    for micro_batch in batch:
        found = next_tokens(micro_batch["text"], eot_id)
        micro_batch["text"] = micro_batch["text"][:, : found.length]
        micro_batch["places"], micro_batch["targets"] = found.places, found.targets
        own += len(found.targets)
    return ranks.total([own])[0]


def needs_end(parts: Parts, objective: str) -> int:
    """The id that ends a text; refuses a tokenizer that keeps no order."""
    if parts.tokenizer.eot_id is None:
        raise UserError(
            f"--objective {objective} predicts words in their order, which --tokenizer words does "
            "not keep; expected bpe or a merges file"
        )
    return parts.tokenizer.eot_id
