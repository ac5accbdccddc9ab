"""Evaluations: one file each, and one line here that names it."""

from __future__ import annotations

from torch import nn

from fastclip.data.fields import CAPTIONS, LABELS, TAGS
from fastclip.evals.base import Evaluation
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
)


def evaluations_of(model: nn.Module) -> list[Evaluation]:
    """Those that ``model`` can be asked; a split's first figure is its figure of merit."""
    return [evaluation for evaluation in EVALUATIONS if evaluation.fits(model)]
