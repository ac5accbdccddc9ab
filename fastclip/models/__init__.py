"""Towers, and the presets that pair them. Models know no loss."""

from fastclip.models.captioner import Captioner
from fastclip.models.coca import CoCa
from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.factory import (
    create_captioner,
    create_coca,
    create_masked_captioner,
    create_model,
    create_tagger,
)
from fastclip.models.masked_captioner import MaskedCaptioner
from fastclip.models.named_presets import list_models
from fastclip.models.tagger import Tagger

__all__ = [
    "Captioner",
    "CoCa",
    "DualEncoder",
    "MaskedCaptioner",
    "Tagger",
    "create_captioner",
    "create_coca",
    "create_masked_captioner",
    "create_model",
    "create_tagger",
    "list_models",
]
