"""What an evaluation is: a model and a split in, figures and pictures out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastclip.comm.division import Division
from fastclip.comm.ranks import Ranks
from fastclip.data.fields import Field
from fastclip.data.splits import Split, SplitFacts


@dataclass(frozen=True)
class Figure:
    """One number found on a split.

    Attributes:
        name: its key in results.json.
        title: in words.
        percent: whether it is a share, shown as a percentage.
        candidates: among how many the right one was sought; None where there are none.
        chance: what guessing would reach; None where that has no meaning.
    """

    name: str
    title: str
    value: float
    percent: bool = True
    candidates: int | None = None
    chance: float | None = None

    def sentence(self, where: str) -> str:
        """The figure on the split ``where``, with its candidates and chance."""
        known = []
        if self.candidates is not None:
            known.append(f"{self.candidates} candidates")
        if self.chance is not None:
            known.append(f"chance {_shown(self.chance, self.percent)}")
        note = f" ({', '.join(known)})" if known else ""
        return f"{self.title} on {where}: {_shown(self.value, self.percent)}{note}"


def _shown(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.4g}"


@dataclass(frozen=True)
class Result:
    """Figures, the first of them the figure of merit, and what draws pictures, by file name."""

    figures: list[Figure]
    pictures: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A model to evaluate, and how it is run.

    Attributes:
        model, tokenizer: those of a run; an evaluation says by ``needs`` which methods it uses.
        batch: rows of one forward pass.
        autocast: makes the context of every forward pass.
        kept: what one evaluation found on a split and others ask for too.
    """

    model: Any
    tokenizer: Any
    ranks: Ranks
    batch: int
    autocast: Callable[[], AbstractContextManager]
    kept: dict[str, Any] = field(default_factory=dict)

    def over_pictures(self, split: Split, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``function(pictures [b, 3, S, S], rows [b])`` of all pictures, ``[n, ...]``.

        ``rows`` (int64, on the host) are the pictures' places in the split. Called equally often on
        every rank; every rank gets all results, on the CPU and floats in fp32.
        """
        division = split.division
        places = division.padded()
        rows = division.own if len(division.own) else torch.zeros(1, dtype=torch.int64)
        return self._over(division, places, lambda part: function(split.pictures[part], rows[part]))

    def over_texts(self, texts: Sequence[str], function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function(token ids [b, L])`` of all texts, ``[len(texts), ...]`` on every rank."""
        division = Division.of(len(texts), self.ranks)
        rows = division.own if len(division.own) else torch.zeros(1, dtype=torch.int64)

        def of_part(part: Tensor) -> Tensor:
            return function(self.tokenizer([texts[row] for row in rows[part].tolist()]))

        return self._over(division, division.padded(), of_part)

    @torch.no_grad()
    def _over(
        self, division: Division, places: Tensor, function: Callable[[Tensor], Tensor]
    ) -> Tensor:
        found = []
        for part in places.split(self.batch):
            with self.autocast():
                value = function(part)
            found.append(value.float() if value.is_floating_point() else value)
        return division.gather(torch.cat(found))

    def images(self, split: Split) -> Tensor:
        """Unit features ``[n, D]`` of a split's pictures."""
        device = self.ranks.device
        return self.over_pictures(
            split, lambda pictures, _: self.model.encode_image(pictures.to(device))
        )

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features ``[len(texts), D]`` of texts."""
        device = self.ranks.device
        return self.over_texts(texts, lambda ids: self.model.encode_text(ids.to(device)))


class Evaluation(ABC):
    """One question asked of a model on a split."""

    name: str
    needs: ClassVar[tuple[str, ...]]
    """Methods that the model must have."""
    reads_json: ClassVar[bool] = False
    """Whether it asks for the attributes in the records' json."""
    reads: tuple[Field, ...] = ()
    """Further fields that it asks for."""
    library: ClassVar[str | None] = None
    """The module without which it cannot be asked."""

    def fits(self, model: nn.Module) -> bool:
        """Whether the model can be asked at all."""
        return all(hasattr(model, method) for method in self.needs)

    def unavailable(self) -> str | None:
        """Why it cannot be asked anywhere here, in a sentence; None where it can."""
        if self.library is None or find_spec(self.library) is not None:
            return None
        return f"{self.name} is not measured: the module {self.library} is not installed"

    @abstractmethod
    def lacks(self, facts: SplitFacts) -> str | None:
        """What a split lacks for this evaluation, to follow "has no" ("captions", or "captions for
        3 of its 9 records, the first 17"); None where nothing."""

    @abstractmethod
    def run(self, subject: Subject, split: Split) -> Result:
        """Ask; every rank must call, and every rank gets the same figures."""
