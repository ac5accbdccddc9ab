"""How captions are to be written, checked."""

from __future__ import annotations

import math
from numbers import Real
from operator import index

from fastclip.errors import UserError

BEAMS, MOST_BEAMS = 5, 256


def check_decoding(
    beams: int | None, top_p: float | None, seed: int | None, dash: str = ""
) -> tuple[int, int]:
    """Refuse ways of writing that there are none of; what was left out is None.

    ``dash`` comes before names in messages. Returns beams and seed, with their defaults.
    """
    if beams is not None and top_p is not None:
        raise UserError(f"{dash}beams and {_flag(dash, 'top_p')} cannot go together: leave out one")
    if seed is not None and top_p is None:
        raise UserError(f"{dash}seed does nothing without {_flag(dash, 'top_p')}")
    if top_p is not None and not (isinstance(top_p, Real) and 0 < top_p <= 1):
        raise UserError(f"{_flag(dash, 'top_p')} is {top_p!r}, expected 0 < value <= 1")
    beams = check_number(f"{dash}beams", BEAMS if beams is None else beams, 1, MOST_BEAMS)
    return beams, check_number(f"{dash}seed", seed or 0, 0, 2**63 - 1)


def check_number(name: str, value: int, least: int, most: float = math.inf) -> int:
    """``value`` if it is a whole number from ``least`` to ``most``, else raises UserError."""
    try:
        number = index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number <= most:
        upwards = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise UserError(f"{name} is {value!r}, expected {upwards}")
    return number


def _flag(dash: str, name: str) -> str:
    return dash + (name.replace("_", "-") if dash else name)
