"""Which token follows each token of a caption, for objectives that predict words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastclip.comm.ranks import Ranks
from fastclip.objectives.base import MicroBatch


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
    ends = text.eq(eot_id)
    # A caption cut without an end has targets up to its last token.
    last = torch.where(ends.any(1), ends.int().argmax(1), text.shape[1] - 1)
    length = int(last.max()) + 1 if len(text) else 1
    used = torch.arange(1, length) <= last[:, None]
    places = used.flatten().nonzero()[:, 0]
    return NextTokens(places, text[:, 1:length].flatten()[places], length)


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
