"""Towers, and the presets that pair them. Models know no loss."""

from fastclip.models.captioner import Captioner
from fastclip.models.coca import CoCa
from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.factory import create_captioner, create_coca, create_model, list_models

__all__ = [
    "Captioner",
    "CoCa",
    "DualEncoder",
    "create_captioner",
    "create_coca",
    "create_model",
    "list_models",
]
