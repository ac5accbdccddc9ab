"""From a name to a model."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from fastclip.data.tags.source import TagSource
from fastclip.data.text.masking import WordMasking
from fastclip.errors import UserError
from fastclip.models.build_towers import build_image_tower, build_text_tower
from fastclip.models.caption_decoder import CaptionDecoder
from fastclip.models.captioner import Captioner
from fastclip.models.coca import CoCa, UnimodalText
from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.lazy_text_encoder import LazyTextEncoder
from fastclip.models.masked_captioner import MaskedCaptioner
from fastclip.models.masked_word_model import MaskedWordModel
from fastclip.models.presets import (
    PRESETS,
    DecoderShape,
    Preset,
    TextTransformer,
    TimmBackbone,
    VisionTransformer,
)
from fastclip.models.tagger import Activation, Tagger
from fastclip.models.tower import ImageTower

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
    preset = _tailored_preset(name, vocab_size, context_length, pad_id, eot_id, overrides)
    return DualEncoder(
        build_image_tower(preset),
        build_text_tower(preset),
        embed_dim=preset.embed_dim,
        **_sizes(preset),
    )


def create_captioner(
    name: str,
    *,
    vocab_size: int,
    context_length: int,
    eot_id: int | None,
    pad_id: int | None = None,
    decoder_width: int | None = None,
    decoder_layers: int | None = None,
    decoder_heads: int | None = None,
    dropout: float = 0.1,
    pre_norm: bool = False,
    bidirectional: bool = False,
    **overrides: Any,
) -> Captioner:
    """A captioner with random weights: a preset's image tower and VirTex's textual head.

    ``name``, the tokenizer's keywords and ``overrides`` are those of :func:`create_model`; the
    decoder's shape is the preset's where left out. Texts are read up to their first end, so
    ``pad_id`` may be a word's id. Raises ``UserError`` as ``create_model`` does, and for a
    tokenizer without an end of text.
    """
    eot_id = _end_of_text(eot_id)
    preset = _tailored_preset(name, vocab_size, context_length, pad_id, eot_id, overrides)
    shape = _decoder_shape(preset.decoder, decoder_width, decoder_layers, decoder_heads)
    return Captioner(
        *_tower_and_decoder(preset, vocab_size, shape, dropout, pre_norm, bidirectional),
        **_sizes(preset),
    )


def create_masked_captioner(
    name: str,
    tokenizer: Any,
    *,
    decoder_width: int | None = None,
    decoder_layers: int | None = None,
    decoder_heads: int | None = None,
    dropout: float = 0.1,
    pre_norm: bool = False,
    **overrides: Any,
) -> MaskedCaptioner:
    """A model of masked words with random weights; [MASK] is the id behind the tokenizer's own.

    Other keywords are those of :func:`create_captioner`. Raises ``UserError`` as it does.
    """
    eot_id, size = _end_of_text(tokenizer.eot_id), tokenizer.vocab_size
    length, pad_id = tokenizer.context_length, tokenizer.pad_id
    preset = _tailored_preset(name, size, length, pad_id, eot_id, overrides)
    shape = _decoder_shape(preset.decoder, decoder_width, decoder_layers, decoder_heads)
    visual, decoder = _tower_and_decoder(preset, size + 1, shape, dropout, pre_norm)
    return MaskedCaptioner(visual, decoder, tokenizer, **_sizes(preset))


def create_coca(
    name: str,
    *,
    vocab_size: int,
    context_length: int,
    eot_id: int | None,
    pad_id: int | None = None,
    decoder_width: int | None = None,
    decoder_layers: int | None = None,
    decoder_heads: int | None = None,
    **overrides: Any,
) -> CoCa:
    """A CoCa with random weights, its image tower a preset's.

    Keywords are those of :func:`create_captioner`. Each half of the text's layers has
    ``decoder_layers``; shapes that are left out are those of the preset's text transformer, or of
    its decoder where its text is a bag of tokens. Raises ``UserError`` as ``create_captioner``.
    """
    eot_id = _end_of_text(eot_id)
    preset = _tailored_preset(name, vocab_size, context_length, pad_id, eot_id, overrides)
    text = preset.text
    shape = preset.decoder
    if isinstance(text, TextTransformer):
        shape = DecoderShape(text.width, text.layers, text.heads)
    shape = _decoder_shape(shape, decoder_width, decoder_layers, decoder_heads)
    visual = build_image_tower(preset)
    unimodal = UnimodalText(
        preset.vocab_size,
        eot_id,
        preset.context_length,
        preset.embed_dim,
        shape.width,
        shape.layers,
        shape.heads,
    )
    return CoCa(visual, unimodal, **_sizes(preset))


def _tower_and_decoder(
    preset: Preset,
    vocab_size: int,
    shape: DecoderShape,
    dropout: float,
    pre_norm: bool,
    bidirectional: bool = False,
) -> tuple[ImageTower, CaptionDecoder]:
    if not 0 <= dropout < 1:
        raise UserError(f"model: dropout is {dropout}; it must be at least 0 and below 1.")
    visual = build_image_tower(preset, grid_only=True)
    decoder = CaptionDecoder(
        vocab_size,
        visual.grid_width,
        shape.width,
        shape.layers,
        shape.heads,
        preset.context_length,
        dropout,
        pre_norm=pre_norm,
        bidirectional=bidirectional,
    )
    return visual, decoder


def create_tagger(
    name: str, *, tags: TagSource, activation: Activation, **overrides: Any
) -> Tagger:
    """A tagger with random weights on the image tower that ``name`` has in :func:`create_model`.

    ``overrides`` and errors are those of ``create_model``.
    """
    preset = _tailored_preset(name, None, None, None, None, overrides)
    visual = build_image_tower(preset, grid_only=True)
    return Tagger(visual, tags, activation, **_sizes(preset))


def create_masked_word_model(
    name: str,
    make_fusion: Callable[[int], Any],
    masking: WordMasking,
    text_encoder: LazyTextEncoder,
    *,
    context_length: int,
    **overrides: Any,
) -> MaskedWordModel:
    """A preset's image tower with an ICMLM's fusion and heads on its grid, with random weights.

    ``name`` and ``overrides`` are those of :func:`create_model`.
    """
    preset = _tailored_preset(name, None, context_length, None, None, overrides)
    visual = build_image_tower(preset, grid_only=True)
    return MaskedWordModel(visual, make_fusion, masking, text_encoder, **_sizes(preset))


def _end_of_text(eot_id: int | None) -> int:
    if eot_id is None:
        raise UserError(
            "--tokenizer: a bag of words has neither an order nor an end of text, which a model "
            "that writes captions needs; accepted: bpe or the path of a merges file."
        )
    return eot_id


def _tailored_preset(
    name: str,
    vocab_size: int | None,
    context_length: int | None,
    pad_id: int | None,
    eot_id: int | None,
    overrides: dict[str, Any],
) -> Preset:
    """The preset of a name with what is not None in place of its own fields."""
    tokens = {
        "vocab_size": vocab_size,
        "context_length": context_length,
        "pad_id": pad_id,
        "eot_id": eot_id,
    }
    overrides = overrides | {key: value for key, value in tokens.items() if value is not None}
    preset = find_preset(name)
    known = [field.name for field in fields(Preset)]
    for key in overrides:
        if key not in known:
            raise UserError(f"model: no field {key!r} in a preset; fields: {', '.join(known)}.")
    preset = replace(preset, **overrides)
    check_preset(preset)
    return preset


def _decoder_shape(
    shape: DecoderShape, width: int | None, layers: int | None, heads: int | None
) -> DecoderShape:
    given = {"width": width, "layers": layers, "heads": heads}
    shape = replace(shape, **{key: value for key, value in given.items() if value is not None})
    for field in fields(shape):
        value = getattr(shape, field.name)
        if value < 1:
            raise UserError(f"model: decoder_{field.name} is {value}; it must be at least 1.")
    if shape.width % shape.heads:
        raise UserError(
            f"model: decoder_width is {shape.width}; it must be a multiple of decoder_heads, "
            f"{shape.heads}."
        )
    return shape


def _sizes(preset: Preset) -> dict[str, Any]:
    """What every model is told of its pictures and texts."""
    names = ("image_size", "context_length", "mean", "std")
    return {name: getattr(preset, name) for name in names}


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
    image = preset.image
    if isinstance(image, VisionTransformer) and preset.image_size % image.patch_size:
        raise UserError(
            f"model: image_size is {preset.image_size}; it must be a multiple of the patch size, "
            f"{image.patch_size}."
        )
