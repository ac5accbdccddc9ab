"""Evaluations: one file each, and one line here that names it."""

from __future__ import annotations

from torch import nn

from fastclip.data.fields import CAPTIONS, LABELS, TAGS
from fastclip.evals.base import Evaluation
from fastclip.evals.bleu import Bleu
from fastclip.evals.cider import Cider
from fastclip.evals.exact_captions import ExactCaptions
from fastclip.evals.masked_words import MaskedWords
from fastclip.evals.perplexity import Perplexity
from fastclip.evals.retrieval import Retrieval
from fastclip.evals.tags import TagPrecision
from fastclip.evals.zeroshot import ZeroShot

EVALUATIONS: tuple[Evaluation, ...] = (
    ZeroShot(),
    Retrieval(),
    ExactCaptions(),
    Perplexity(),
    TagPrecision(CAPTIONS),
    TagPrecision(TAGS),
    TagPrecision(LABELS),
    MaskedWords(),
    Bleu(),
    Cider(),
)


def evaluations_of(model: nn.Module) -> list[Evaluation]:
    """Those that ``model`` can be asked; a split's first figure is its figure of merit."""
    return [e for e in EVALUATIONS if e.fits(model) and e.unavailable() is None]


def unavailable_for(model: nn.Module) -> list[str]:
    """Why evaluations that would fit ``model`` cannot be asked here, a sentence each."""
    return [told for e in EVALUATIONS if e.fits(model) and (told := e.unavailable()) is not None]
