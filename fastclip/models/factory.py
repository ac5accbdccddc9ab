"""From a name to a model."""

from dataclasses import fields, replace
from typing import Any

from fastclip.errors import UserError
from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.presets import (
    PRESETS,
    ConvNet,
    Preset,
    TextBag,
    TextTransformer,
    TimmBackbone,
    VisionTransformer,
)
from fastclip.models.tower import ImageTower, Tower

TIMM_PREFIX = "timm:"


def list_models() -> list[str]:
    """Names of the presets. ``timm:<name>`` is accepted besides, for any image model of timm."""
    return sorted(PRESETS)


def create_model(
    name: str,
    *,
    vocab_size: int | None = None,
    context_length: int | None = None,
    pad_id: int | None = None,
    eot_id: int | None = None,
    **overrides: Any,
) -> DualEncoder:
    """A model with random weights, initialized as CLIP was.

    ``name`` is a preset (``list_models()``) or ``timm:<image model>``, which is joined to CLIP's
    text transformer. The four keywords come from the tokenizer; what is None stays as the preset
    has it, and a new ``vocab_size`` without ``eot_id`` makes the highest id the end of text.
    ``overrides`` replace fields of the preset by name (``image_size=64``, ``embed_dim=256``).
    Raises ``UserError`` for an unknown name or field and for shapes that do not fit.
    """
    tokens = {
        "vocab_size": vocab_size,
        "context_length": context_length,
        "pad_id": pad_id,
        "eot_id": eot_id,
    }
    overrides |= {key: value for key, value in tokens.items() if value is not None}
    preset = find_preset(name)
    known = [field.name for field in fields(Preset)]
    for key in overrides:
        if key not in known:
            raise UserError(f"model: no field {key!r} in a preset; fields: {', '.join(known)}.")
    preset = replace(preset, **overrides)
    check_preset(preset)
    return DualEncoder(
        build_image_tower(preset),
        build_text_tower(preset),
        embed_dim=preset.embed_dim,
        image_size=preset.image_size,
        context_length=preset.context_length,
        mean=preset.mean,
        std=preset.std,
    )


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
    if preset.eot_id == 2 and isinstance(preset.text, TextTransformer):
        raise UserError(
            "model: eot_id is 2, which transformers' CLIP reads as 'pool at the highest id'; "
            "give the end-of-text token another id."
        )
    image = preset.image
    if isinstance(image, VisionTransformer) and preset.image_size % image.patch_size:
        raise UserError(
            f"model: image_size is {preset.image_size}; it must be a multiple of the patch size, "
            f"{image.patch_size}."
        )


def build_image_tower(preset: Preset) -> ImageTower:
    """The image tower of a preset."""
    image = preset.image
    if isinstance(image, TimmBackbone):
        from fastclip.models.timm_tower import TimmTower

        return TimmTower(image.name, preset.embed_dim, preset.image_size, image.kwargs)
    if isinstance(image, ConvNet):
        from fastclip.models.convnet import ConvNetTower

        return ConvNetTower(image.widths, preset.embed_dim, image.pool)

    from transformers import CLIPVisionConfig

    from fastclip.models.vit import ClipVisionTower

    config = CLIPVisionConfig(
        hidden_size=image.width,
        intermediate_size=4 * image.width,
        projection_dim=preset.embed_dim,
        num_hidden_layers=image.layers,
        num_attention_heads=image.heads,
        image_size=preset.image_size,
        patch_size=image.patch_size,
        hidden_act=activation(preset),
    )
    return ClipVisionTower(config, preset.embed_dim)


def build_text_tower(preset: Preset) -> Tower:
    """The text tower of a preset."""
    text = preset.text
    if isinstance(text, TextBag):
        from fastclip.models.text_bag import TextBagTower

        return TextBagTower(
            preset.vocab_size, text.width, text.hidden, preset.embed_dim, preset.pad_id
        )

    from transformers import CLIPTextConfig

    from fastclip.models.text_transformer import ClipTextTower

    config = CLIPTextConfig(
        vocab_size=preset.vocab_size,
        hidden_size=text.width,
        intermediate_size=4 * text.width,
        projection_dim=preset.embed_dim,
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        max_position_embeddings=preset.context_length,
        hidden_act=activation(preset),
        pad_token_id=preset.pad_id,
        bos_token_id=None,
        eos_token_id=preset.vocab_size - 1 if preset.eot_id is None else preset.eot_id,
    )
    return ClipTextTower(config, preset.embed_dim)


def activation(preset: Preset) -> str:
    """transformers' name of the transformers' activation."""
    return "quick_gelu" if preset.quick_gelu else "gelu"
