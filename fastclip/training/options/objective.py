"""Which objective a run has, and whose a flag is."""

from collections.abc import Mapping
from typing import Any

from fastclip import objectives
from fastclip.errors import UserError
from fastclip.training.flags import flags_of, is_known, types_of
from fastclip.training.options.open_clip_flags import NOT_OURS


def choose_objective(*levels: Mapping[str, Any]) -> str:
    """The objective that ``levels`` of values name, a later one winning over an earlier.

    ``siglip`` and ``objective`` must agree where one level has both.
    """
    chosen = "clip"
    for level in levels:
        name, siglip = level.get("objective"), level.get("siglip")
        if name is not None:
            if name not in objectives.OBJECTIVES:
                objectives.find_objective(name)  # says which there are
            if siglip is not None and siglip != (name == "siglip"):
                given = "--siglip" if siglip else "--no-siglip"
                raise UserError(f"{given} contradicts --objective {name}: give one of them")
            chosen = name
        elif siglip:
            chosen = "siglip"
        elif siglip is False and chosen == "siglip":
            chosen = "clip"
    return chosen


def explain_misplaced(shown: str, flag: str, objective: str) -> str | None:
    """What to say of a ``flag`` that is open_clip's or another objective's; None of any other.

    Args:
        shown: how the sentence names the flag.
    """
    if flag in NOT_OURS:
        return f"{flag} {NOT_OURS[flag]}"
    owners = [name for name in objectives.OBJECTIVES if is_known(flag, _own_flags(name))]
    if not owners:
        return None
    *others, last = owners
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"{shown} is a flag of --objective {listed}, this run's objective is {objective}"


def _own_flags(objective: str) -> Mapping[str, Any]:
    return flags_of(types_of(objectives.find_objective(objective).Options))


def list_objectives() -> str:
    """Name, summary and paper of every objective, in lines for ``--help``."""
    width = max(map(len, objectives.OBJECTIVES))
    lines = []
    for name in objectives.OBJECTIVES:
        found = objectives.find_objective(name)
        lines += [f"  {name:{width}}  {found.summary}", f"  {'':{width}}  {found.paper}"]
    return "\n".join(lines)
