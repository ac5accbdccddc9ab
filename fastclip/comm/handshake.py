"""What ranks agreed upon, and what is raised on each of them where they do not agree."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from fastclip.comm.rank_rows import Shards

SHARDS = ("any", "equal")

# Of what a rank tells the others, above all gradients that it may want: it refused its inputs.
REFUSED = 16


class Handshake:
    """How often the ranks of a loss make sure that they agree, and upon what they did.

    Args:
        shards: ``"any"``: on every call. ``"equal"``: they hold as many rows each, and do so the
            first time that a set of gradients is wanted; later calls have neither a handshake nor a
            host synchronisation.
        fixed: with ``"equal"``, a later call of other rows, width, dtype or flags raises on the
            rank that makes it; otherwise it has a handshake of its own.
    Attributes:
        agreed: by group, rows of this rank and the call in words, the shards by the gradients that
            are wanted; empty with ``"any"``.
        peers: of the last call of a module, after the group, rank and world size that they are of.
    Raises:
        ValueError: ``shards`` is neither.
    """

    def __init__(self, shards: str = "any", fixed: bool = True):
        if shards not in SHARDS:
            raise ValueError(f"shards={shards!r}; accepted: {', '.join(SHARDS)}")
        self.shards = shards
        self.fixed = fixed
        self.peers: tuple[tuple[object, int, int], Any] | None = None
        self.agreed: dict[tuple[dist.ProcessGroup, int, str], dict[int, Shards]] = {}

    def __reduce__(self):
        # What was agreed upon holds in this process only.
        return Handshake, (self.shards, self.fixed)

    def another_call(self, rows: int, call: str) -> ValueError:
        """What a call raises that is not the one agreed upon."""
        _, agreed_rows, agreed_call = next(iter(self.agreed))
        return ValueError(
            f"shards='equal' was agreed upon for {agreed_rows} rows of {agreed_call}, "
            f"found {rows} rows of {call}; use shards='any' where calls differ"
        )


def idle_ranks(grad_flags: tuple[int, ...]) -> ValueError:
    """What every rank raises where only some of them want gradients."""
    wanting = [rank for rank, flags in enumerate(grad_flags) if flags]
    idle = [rank for rank, flags in enumerate(grad_flags) if not flags]
    return ValueError(
        f"gradients are wanted on {_name(wanting)} but not on {_name(idle)}; "
        "a backward pass takes every rank"
    )


def unequal_rows(rows: tuple[int, ...]) -> ValueError:
    """What every rank raises where ``shards="equal"`` is not so."""
    return ValueError(
        f"shards='equal', but the ranks hold {list(rows)} rows; use shards='any' for unequal shards"
    )


def disagreement(group: dist.ProcessGroup, call: str, refusal: Exception | None) -> ValueError:
    """What every rank raises where their calls differ, or one of them refused its inputs; only here
    are the words themselves exchanged."""
    said: list[tuple[str, str | None]] = [("", None)] * dist.get_world_size(group)
    reason = None if refusal is None else str(refusal)
    dist.all_gather_object(said, (call, reason), group=group)
    calls: dict[str, list[int]] = {}
    reasons: dict[str, list[int]] = {}
    for rank, (words, why) in enumerate(said):
        calls.setdefault(words, []).append(rank)
        if why is not None:
            reasons.setdefault(why, []).append(rank)
    if reasons:
        return ValueError("; ".join(f"{_name(who)}: {why}" for why, who in reasons.items()))
    heard = "; ".join(f"{_name(who)}: {words}" for words, who in calls.items())
    return ValueError(f"the ranks must make the same call; found {heard}")


def _name(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
