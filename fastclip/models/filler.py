"""What a model offers that foresees a masked word of a sentence about a picture."""

from typing import NamedTuple, Protocol

from torch import Tensor

MASK = "[MASK]"
"""What stands for the word in a sentence."""


class Foreseen(NamedTuple):
    """What stands at a masked place.

    Attributes:
        log_probs: fp32 ``[V]``, of every word that can stand there.
        attention: fp32 ``[rows, columns]``, how much of it comes from each cell of the picture's
            grid; not negative, of sum 1.
    """

    log_probs: Tensor
    attention: Tensor


class Filler(Protocol):
    """Put by an objective into :meth:`fastclip.objectives.base.Objective.trained` as ``filler``."""

    def foresee(self, picture: Tensor, sentence: str) -> Foreseen:
        """For a picture uint8 ``[3, S, S]`` and a sentence that holds :data:`MASK` once.

        Raises :class:`fastclip.errors.UserError` for a sentence that is too long.
        """
        ...

    def word(self, number: int) -> str:
        """The word of a place in ``log_probs``."""
        ...
