"""Systems that train on the engine: one file each, and one line here that names it."""

from __future__ import annotations

import importlib
from typing import Any

from fastclip.errors import UserError

FILES = {
    "clip": "clip:Clip",
    "siglip": "siglip:SigLip",
    "bicaptioning": "bicaptioning:Bicaptioning",
    "captioning": "captioning:Captioning",
    "masked_lm": "masked_lm:MaskedLm",
    "coca": "coca:CoCa",
    "distill": "distill:Distill",
    "icmlm_tfm": "icmlm_tfm:IcmlmTfm",
    "icmlm_attfc": "icmlm_attfc:IcmlmAttfc",
    "tp_label": "tp_label:TpLabel",
    "tp_postag": "tp_postag:TpPostag",
    "tp_cluster": "tp_cluster:TpCluster",
    "token_classification": "token_classification:TokenClassification",
    "multilabel_classification": "multilabel_classification:MultilabelClassification",
}
"""Of each objective its file here, and its class."""

OBJECTIVES = tuple(FILES)
"""Names that ``--objective`` takes."""


def find_objective(name: str) -> Any:
    """The class of an objective (a subclass of ``base.Objective`` or ``fitted.Fitted``)."""
    if name not in FILES:
        raise UserError(f"--objective is {name!r}, expected one of {', '.join(OBJECTIVES)}")
    file, _, cls = FILES[name].partition(":")
    return getattr(importlib.import_module(f"fastclip.objectives.{file}"), cls)
