"""Augmentation of batches on the host, after the crop: uint8 in, uint8 out."""

from fastclip.data.augment.batch import augment
from fastclip.data.augment.config import AugmentConfig

__all__ = ["AugmentConfig", "augment"]
