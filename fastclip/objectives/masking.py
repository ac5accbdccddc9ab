"""Which tokens of a caption VirTex's masked language modelling hides."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from fastclip.errors import UserError, check_flags
from fastclip.objectives.virtex import VirTexOptions


@dataclass(kw_only=True)
class MaskingOptions(VirTexOptions):
    """Flags of masking, by the names of VirTex's configuration."""

    mask_proportion: float = 0.15
    """Share of a caption's tokens, its first and last apart, that are chosen; rounded up."""
    mask_probability: float = 0.85
    """Probability that a chosen token becomes [MASK] and is to be foreseen; 1 for a single one."""
    replace_probability: float = 0.10
    """Probability that a chosen token becomes a random one; else it stays as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flags(self, ("mask_proportion",), "0 < value <= 1", lambda p: 0 < p <= 1)
        both = ("mask_probability", "replace_probability")
        check_flags(self, both, "0 to 1", lambda p: 0 <= p <= 1)
        if self.mask_probability + self.replace_probability > 1 + 1e-9:
            raise UserError(
                f"--mask-probability {self.mask_probability} and --replace-probability "
                f"{self.replace_probability} add up to more than 1"
            )


def mask_tokens(
    tokens: list[int], options: MaskingOptions, pieces: int, mask_id: int, seed: int
) -> tuple[list[int], list[int]]:
    """A caption with some of its tokens hidden, and the places of those that are ``mask_id`` now.

    ``tokens`` are without padding; the first and the last are never chosen. A random token is one
    of the first ``pieces`` ids.
    """
    draw = random.Random(seed)
    inner = len(tokens) - 2
    if inner < 1:
        return tokens, []
    chosen = draw.sample(range(1, inner + 1), math.ceil(inner * options.mask_proportion))
    hidden, masked = list(tokens), []
    for place in sorted(chosen):
        fate = draw.random()
        if len(chosen) == 1 or fate < options.mask_probability:
            hidden[place] = mask_id
            masked.append(place)
        elif fate < options.mask_probability + options.replace_probability:
            hidden[place] = draw.randrange(pieces)
    return hidden, masked
