"""The handshake before a call's first large collective."""

from __future__ import annotations

import hashlib
import weakref

import torch
import torch.distributed as dist

from fastclip.comm.shards import Shards, all_gather

SHARDS = ("any", "equal")

# Beside the bits of what a rank wants: that it refused its inputs.
REFUSED = 8


class Agreement:
    """The handshake before the first large collective of a call.

    Ranks exchange their rows, a digest of the call (operation, flags, dtype, width) and the
    gradients they want. Where they disagree, or one of them refused its inputs, every rank raises
    the same ValueError. ``shards="any"`` does so on every call; ``"equal"`` wants the same number
    of rows on every rank and does so the first time a set of gradients is wanted: from then on no
    host synchronisation is left, and a rank whose own call has changed raises by itself.
    """

    def __init__(self, shards: str = "any"):
        if shards not in SHARDS:
            raise ValueError(f"shards is {shards!r}; accepted are {_either(SHARDS)}")
        self.shards = shards
        self._first: tuple[int, str] | None = None
        self._known: dict[int, Shards] = {}

    def __reduce__(self):
        # What was agreed upon holds for this process and its groups only.
        return Agreement, (self.shards,)

    def reach(
        self,
        group: dist.ProcessGroup,
        rows: int,
        call: str,
        wants: int,
        device: torch.device,
        refusal: Exception | None = None,
    ) -> Shards:
        """The shards of this call.

        Args:
            group: the group whose ranks make the call together.
            rows: rows of this rank.
            call: what must be the same on every rank, in words.
            wants: ``IMAGE | TEXT | SCALE``, the gradients that this rank wants.
            device: where the group's backend takes tensors.
            refusal: why this rank cannot go on, if it cannot.

        Raises:
            ValueError: the same on every rank.
        """
        if self._first is not None:
            if refusal is not None:
                raise refusal
            if self._first != (rows, call):
                raise ValueError(
                    f"shards='equal' was agreed upon for {self._first[0]} rows of "
                    f"{self._first[1]}, found {rows} rows of {call}; use shards='any' where "
                    "calls differ"
                )
            if wants in self._known:
                return self._known[wants]
        flags = wants | (REFUSED if refusal else 0)
        digest = hashlib.blake2b(call.encode(), digest_size=8).digest()
        own = torch.tensor(
            [[rows, int.from_bytes(digest, "little", signed=True), flags]], device=device
        )
        table = all_gather(own, (1,) * dist.get_world_size(group), group).tolist()
        digests = {row[1] for row in table}
        refused = any(row[2] & REFUSED for row in table)
        if refused or len(digests) > 1:
            raise _disagreement(group, call, refusal) from refusal
        shards = Shards(group, tuple(row[0] for row in table), tuple(row[2] for row in table))
        _check_shards(shards, self.shards)
        if self.shards == "equal":
            self._first = (rows, call)
            self._known[wants] = shards
        return shards


def agreement_for(group: dist.ProcessGroup | None, shards: str, signature: str) -> Agreement:
    """The agreement of a function call: kept per group and signature where shards are equal."""
    if shards != "equal" or group is None:
        return Agreement(shards)
    return _function_agreements.setdefault(group, {}).setdefault(signature, Agreement(shards))


def _check_shards(shards: Shards, kind: str) -> None:
    wanting = [rank for rank, want in enumerate(shards.wants) if want]
    if wanting and len(wanting) < shards.world:
        idle = [rank for rank in range(shards.world) if rank not in wanting]
        raise ValueError(
            f"{_ranks(wanting)} need gradients and {_ranks(idle)} do not; a backward pass takes "
            "every rank"
        )
    if kind == "equal" and len(set(shards.rows)) > 1:
        raise ValueError(
            f"shards='equal', found {list(shards.rows)} rows; use shards='any' for unequal shards"
        )
    if not shards.total:
        raise ValueError("the batch has no rows on any rank; at least one row is needed")


def _disagreement(group: dist.ProcessGroup, call: str, refusal: Exception | None) -> ValueError:
    """What every rank raises; only here are the words themselves exchanged."""
    said: list[tuple[str, str | None]] = [("", None)] * dist.get_world_size(group)
    dist.all_gather_object(said, (call, str(refusal) if refusal else None), group=group)
    refusals: dict[str, list[int]] = {}
    calls: dict[str, list[int]] = {}
    for rank, (words, reason) in enumerate(said):
        if reason is not None:
            refusals.setdefault(reason, []).append(rank)
        calls.setdefault(words, []).append(rank)
    if refusals:
        return ValueError("; ".join(f"{_ranks(r)}: {why}" for why, r in refusals.items()))
    heard = "; ".join(f"{_ranks(r)}: {words}" for words, r in calls.items())
    return ValueError(f"every rank must make the same call, found {heard}")


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _either(names: tuple[str, ...]) -> str:
    return " and ".join([", ".join(map(repr, names[:-1])), repr(names[-1])])
