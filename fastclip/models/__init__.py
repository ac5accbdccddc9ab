"""Towers, and the presets that pair them. Models know no loss."""

from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.factory import create_model, list_models

__all__ = ["DualEncoder", "create_model", "list_models"]
