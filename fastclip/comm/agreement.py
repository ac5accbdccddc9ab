"""The handshake before a call's first large collective."""

from __future__ import annotations

import hashlib

import torch
import torch.distributed as dist

from fastclip.comm.shards import Shards, all_gather

SHARDS = ("any", "equal")

# Beside the bits of what a rank wants: that it refused its inputs.
REFUSED = 8


class Agreement:
    """Makes the ranks of a call agree before its first large collective.

    Ranks exchange three int64: their rows, a digest of the call (operation, flags, dtype, width)
    and the gradients they want. Where they disagree, or one of them refused its inputs, every rank
    raises the same ValueError.

    Args:
        shards: ``"any"`` does so on every call. ``"equal"`` wants as many rows on every rank and
            does so the first time a set of gradients is wanted; later calls have neither a
            handshake nor a host synchronisation.
        fixed: with ``"equal"``, a later call of other rows, width, dtype or flags raises on the
            rank that makes it; otherwise it has a handshake of its own.
    """

    def __init__(self, shards: str = "any", fixed: bool = True):
        if shards not in SHARDS:
            raise ValueError(f"shards={shards!r}; accepted: {', '.join(SHARDS)}")
        self.shards = shards
        self.fixed = fixed
        self._known: dict[tuple[dist.ProcessGroup, int, str], dict[int, Shards]] = {}

    def __reduce__(self):
        # What was agreed upon holds in this process only.
        return Agreement, (self.shards, self.fixed)

    def reach(
        self, group: dist.ProcessGroup, rows: int, call: str, wants: int, device: torch.device
    ) -> Shards:
        """The shards of a call of which this rank holds ``rows`` rows.

        Args:
            call: what must be the same on every rank, in words.
            wants: the gradients that this rank wants, ``IMAGE | TEXT | SCALE``.
            device: where the group's backend takes tensors.
        """
        known = self._known.get((group, rows, call))
        if known is None and self._known and self.fixed:
            _, agreed_rows, agreed_call = next(iter(self._known))
            raise ValueError(
                f"shards='equal' was agreed upon for {agreed_rows} rows of {agreed_call}, "
                f"found {rows} rows of {call}; use shards='any' where calls differ"
            )
        if known and wants in known:
            return known[wants]
        table = _exchange(group, rows, call, wants, device)
        if any(flags & REFUSED for _, _, flags in table) or len({row[1] for row in table}) > 1:
            raise _disagreement(group, call, None)
        shards = Shards(group, tuple(row[0] for row in table), tuple(row[2] for row in table))
        _check(shards, self.shards)
        if self.shards == "equal":
            self._known.setdefault((group, rows, call), {})[wants] = shards
        return shards

    def refuse(
        self, group: dist.ProcessGroup, call: str, device: torch.device, reason: Exception
    ) -> Exception:
        """Tells the other ranks that this one cannot go on; returns what to raise."""
        if self._known:
            return reason
        _exchange(group, 0, call, REFUSED, device)
        return _disagreement(group, call, str(reason))


def _exchange(
    group: dist.ProcessGroup, rows: int, call: str, flags: int, device: torch.device
) -> list[list[int]]:
    digest = hashlib.blake2b(call.encode(), digest_size=8).digest()
    own = [[rows, int.from_bytes(digest, "little", signed=True), flags]]
    sizes = (1,) * dist.get_world_size(group)
    return all_gather(torch.tensor(own, device=device), sizes, group).tolist()


def _check(shards: Shards, kind: str) -> None:
    wanting = [rank for rank, want in enumerate(shards.wants) if want]
    if wanting and len(wanting) < shards.world:
        idle = [rank for rank in range(shards.world) if rank not in wanting]
        raise ValueError(
            f"gradients are wanted on {_name(wanting)} but not on {_name(idle)}; "
            "a backward pass takes every rank"
        )
    if kind == "equal" and len(set(shards.rows)) > 1:
        raise ValueError(
            f"shards='equal', but the ranks hold {list(shards.rows)} rows; "
            "use shards='any' for unequal shards"
        )


def _disagreement(group: dist.ProcessGroup, call: str, reason: str | None) -> ValueError:
    """What every rank raises; only here are the words themselves exchanged."""
    said: list[tuple[str, str | None]] = [("", None)] * dist.get_world_size(group)
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
