"""What a finished run is to its user."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fastclip.data.text import Tokenizer
from fastclip.errors import UserError
from fastclip.objectives import OBJECTIVES, find_objective

if TYPE_CHECKING:
    from fastclip.models.filler import Filler
    from fastclip.runs.filling import Filled
    from fastclip.runs.pictures import Picture


class Trained(tuple):
    """``model`` in evaluation mode, its ``tokenizer`` and what else the objective learned.

    Runs with a contrastive loss have ``logit_scale``, the factor, beside ``log_logit_scale``, and
    SigLIP's ``logit_bias``; they unpack as ``model, tokenizer, logit_scale = trained``, others as
    ``model, tokenizer = trained``. ``objective`` is the name of the objective.

    Runs of objectives that write captions have :meth:`caption`, those that foresee masked words
    :meth:`fill`. Both run where the model is (``trained.model.to("cuda")``).
    """

    objective: str
    model: nn.Module
    tokenizer: Tokenizer
    logit_scale: float
    log_logit_scale: float
    logit_bias: float
    filler: Filler

    def __new__(
        cls, objective: str, model: nn.Module, tokenizer: Tokenizer, scalars: dict[str, Any]
    ) -> Trained:
        scale = [scalars["logit_scale"]] if "logit_scale" in scalars else []
        self = super().__new__(cls, (model, tokenizer, *scale))
        self.__dict__.update(scalars, objective=objective, model=model, tokenizer=tokenizer)
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def caption(
        self,
        pictures: Picture | Iterable[Picture],
        beams: int | None = None,
        *,
        top_p: float | None = None,
        seed: int | None = None,
        batch: int = 32,
    ) -> list[str]:
        """A caption for each picture, also where only one is given, by beam search.

        Args:
            pictures: files, images of Pillow's, or pixels uint8 ``[3, H, W]`` (all of one size may
                be ``[n, 3, H, W]``), which go through the evaluation transform.
            beams: width of the search, 1 to 256, 5 where it is left out.
            top_p: draw from the smallest sets of tokens that hold so much of the probability
                (Holtzman et al. 2020, arXiv 1904.09751), instead of searching with ``beams``.
            seed: of what is drawn, 0 where it is left out. The same pictures in the same batches
                get the same captions.
            batch: pictures at a time.

        Raises :class:`UserError` for a run that writes none, options that are not accepted and a
        picture that cannot be read.
        """
        from fastclip.runs.captions import write
        from fastclip.runs.decoding_options import check_decoding, check_number
        from fastclip.runs.pictures import each_picture, stacked

        self.check_writes()
        beams, seed = check_decoding(beams, top_p, seed)
        batch = check_number("batch", batch, 1)
        generator = torch.Generator(self.device).manual_seed(seed)
        every, size, found = each_picture(pictures), self.model.image_size, []
        for start in range(0, len(every), batch):
            part = stacked(every[start : start + batch], size).to(self.device)  # type: ignore[arg-type]
            found += write(self.model, self.tokenizer, part, beams, top_p, generator)
        return found

    def fill(self, picture: Picture, sentence: str, top: int = 5) -> Filled:
        """The ``top`` likeliest words for the one ``[MASK]`` in a sentence about a picture.

        Raises :class:`UserError` for a run that foresees none, a picture that cannot be read, a
        sentence without exactly one mask, one that is too long, and a ``top`` below 1.
        """
        from fastclip.runs.decoding_options import check_number
        from fastclip.runs.filling import fill
        from fastclip.runs.pictures import stacked

        self.check_fills()
        top = check_number("top", top, 1)
        [pixels] = stacked([picture], self.model.image_size).to(self.device)  # type: ignore[arg-type]
        return fill(self.filler, pixels, sentence, top)

    def check_writes(self) -> None:
        """Raise :class:`UserError` for a run that writes no captions."""
        if not find_objective(self.objective).writes_captions:
            raise UserError(
                f"a run of objective {self.objective} writes no captions, expected one of "
                f"{_that('writes_captions')}"
            )

    def check_fills(self) -> None:
        """Raise :class:`UserError` for a run that foresees no masked words."""
        if "filler" not in self.__dict__:
            raise UserError(
                f"a run of objective {self.objective} foresees no masked words, expected one of "
                f"{_that('fills_masks')}"
            )

    def __getnewargs__(self) -> tuple[str, nn.Module, Tokenizer, dict[str, Any]]:
        known = ("objective", "model", "tokenizer")
        scalars = {k: v for k, v in self.__dict__.items() if k not in known}
        return self.objective, self.model, self.tokenizer, scalars

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a run of objective {self.__dict__.get('objective')} has no {name!r}")

    def __repr__(self) -> str:
        parts = ("model", "tokenizer", "filler", "text_encoder")
        facts = {k: v for k, v in self.__dict__.items() if k not in parts}
        return f"Trained({type(self.model).__name__}, {facts})"


def _that(can: str) -> str:
    """Names of the objectives whose classes say that they can."""
    return ", ".join(name for name in OBJECTIVES if getattr(find_objective(name), can, False))
