"""The contract of a system that no step trains: fitted once to features and annotations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from fastclip.data.fields import Field


class Fitted(ABC):
    """A system that is fitted in one call, in one process and without DeepSpeed.

    A subclass is built by ``Subclass(options)``, with ``options`` an instance of its ``Options``.
    Sums over rows are streamed through the engine, so that no score matrix is ever whole.
    """

    Options: ClassVar[type]
    """Dataclass of the flags that this system alone takes."""
    summary: ClassVar[str]
    """One line for ``--help``."""
    paper: ClassVar[str]
    """Authors, year and arXiv number or venue."""
    fields: ClassVar[tuple[Field, ...]]
    """What it needs of a record beside the picture that its features are taken of."""

    options: Any

    @abstractmethod
    def fit(self, features: Tensor, annotations: dict[str, Any]) -> dict[str, Any]:
        """Fit to ``features [n, D]`` (of a run, a tower or pixels) and columns of ``fields``.

        Returns the state that a run's folder keeps: tensors and plain values, by name.
        """
