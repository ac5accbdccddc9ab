"""Presets by name, with fields of one's own in place of theirs."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from fastclip.errors import UserError
from fastclip.models.image_model import Sizes
from fastclip.models.presets import (
    PRESETS,
    Preset,
    TextTransformer,
    TimmBackbone,
    VisionTransformer,
)

TIMM_PREFIX = "timm:"


def list_models() -> list[str]:
    """Names of the presets. ``timm:<name>`` is accepted besides, for any image model of timm."""
    return sorted(PRESETS)


def find_preset(name: str) -> Preset:
    """The preset of a name, or one made for ``timm:<name>``."""
    if name in PRESETS:
        return PRESETS[name]
    if name.startswith(TIMM_PREFIX):
        from fastclip.models.timm_tower import timm_config

        backbone = name.removeprefix(TIMM_PREFIX)
        config = timm_config(backbone)
        return Preset(
            512,
            TimmBackbone(backbone),
            TextTransformer(),
            image_size=config.input_size[-1],
            mean=config.mean,
            std=config.std,
        )
    raise UserError(
        f"model: unknown name {name!r}; accepted: {', '.join(list_models())}, "
        f"or {TIMM_PREFIX}<image model of timm>."
    )


def tailored_preset(name: str, overrides: Mapping[str, Any], **tokens: int | None) -> Preset:
    """The preset of a name with other fields: ``overrides``, and those of ``tokens`` not None.

    Raises ``UserError`` for an unknown name or field and for shapes that cannot be built.
    """
    overrides = {**overrides, **{key: n for key, n in tokens.items() if n is not None}}
    preset = find_preset(name)
    known = [field.name for field in fields(Preset)]
    for key in overrides:
        if key not in known:
            raise UserError(f"model: no field {key!r} in a preset; fields: {', '.join(known)}.")
    preset = replace(preset, **overrides)
    check_preset(preset)
    return preset


def check_preset(preset: Preset) -> None:
    """Refuse shapes that cannot be built, naming the field."""
    for field in ("embed_dim", "image_size", "context_length", "vocab_size"):
        if getattr(preset, field) < 1:
            raise UserError(f"model: {field} is {getattr(preset, field)}; it must be at least 1.")
    for field in ("pad_id", "eot_id"):
        token = getattr(preset, field)
        if token is not None and not 0 <= token < preset.vocab_size:
            raise UserError(
                f"model: {field} is {token}; it must lie in the vocabulary, "
                f"0 to {preset.vocab_size - 1}."
            )
    image = preset.image
    if isinstance(image, VisionTransformer) and preset.image_size % image.patch_size:
        raise UserError(
            f"model: image_size is {preset.image_size}; it must be a multiple of the patch size, "
            f"{image.patch_size}."
        )


def sizes_of(preset: Preset) -> Sizes:
    """What every model is told of its pictures and texts."""
    return {
        "image_size": preset.image_size,
        "context_length": preset.context_length,
        "mean": preset.mean,
        "std": preset.std,
    }
