"""From a name to a model."""

from collections.abc import Callable
from typing import Any

from fastclip.models.build_decoders import build_tower_and_decoder, decoder_shape, end_of_text
from fastclip.models.build_towers import build_image_tower, build_text_tower
from fastclip.models.captioner import Captioner
from fastclip.models.coca import CoCa, UnimodalText
from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.lazy_text_encoder import LazyTextEncoder
from fastclip.models.masked_captioner import MaskedCaptioner
from fastclip.models.masked_word_model import MaskedWordModel
from fastclip.models.masking import MasksPieces, MasksWords
from fastclip.models.named_presets import sizes_of, tailored_preset
from fastclip.models.presets import DecoderShape, TextTransformer
from fastclip.models.tagger import Activation, Tagger, Tags


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
    tokens = {"context_length": context_length, "pad_id": pad_id, "eot_id": eot_id}
    preset = tailored_preset(name, overrides, vocab_size=vocab_size, **tokens)
    return DualEncoder(
        build_image_tower(preset),
        build_text_tower(preset),
        embed_dim=preset.embed_dim,
        **sizes_of(preset),
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
    eot_id = end_of_text(eot_id)
    tokens = {"context_length": context_length, "pad_id": pad_id, "eot_id": eot_id}
    preset = tailored_preset(name, overrides, vocab_size=vocab_size, **tokens)
    shape = decoder_shape(preset.decoder, decoder_width, decoder_layers, decoder_heads)
    return Captioner(
        *build_tower_and_decoder(preset, vocab_size, shape, dropout, pre_norm, bidirectional),
        **sizes_of(preset),
    )


def create_masked_captioner(
    name: str,
    masking: MasksPieces,
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
    **overrides: Any,
) -> MaskedCaptioner:
    """A model of masked words with random weights; [MASK] is the id behind the tokenizer's own.

    Keywords are those of :func:`create_captioner`. Raises ``UserError`` as it does.
    """
    eot_id = end_of_text(eot_id)
    tokens = {"context_length": context_length, "pad_id": pad_id, "eot_id": eot_id}
    preset = tailored_preset(name, overrides, vocab_size=vocab_size, **tokens)
    shape = decoder_shape(preset.decoder, decoder_width, decoder_layers, decoder_heads)
    visual, decoder = build_tower_and_decoder(preset, vocab_size + 1, shape, dropout, pre_norm)
    return MaskedCaptioner(visual, decoder, masking, **sizes_of(preset))


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
    eot_id = end_of_text(eot_id)
    tokens = {"context_length": context_length, "pad_id": pad_id, "eot_id": eot_id}
    preset = tailored_preset(name, overrides, vocab_size=vocab_size, **tokens)
    text = preset.text
    shape = preset.decoder
    if isinstance(text, TextTransformer):
        shape = DecoderShape(text.width, text.layers, text.heads)
    shape = decoder_shape(shape, decoder_width, decoder_layers, decoder_heads)
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
    return CoCa(visual, unimodal, **sizes_of(preset))


def create_tagger(name: str, *, tags: Tags, activation: Activation, **overrides: Any) -> Tagger:
    """A tagger with random weights on the image tower that ``name`` has in :func:`create_model`.

    ``overrides`` and errors are those of ``create_model``.
    """
    preset = tailored_preset(name, overrides)
    visual = build_image_tower(preset, grid_only=True)
    return Tagger(visual, tags, activation, **sizes_of(preset))


def create_masked_word_model(
    name: str,
    make_fusion: Callable[[int], Any],
    masking: MasksWords,
    text_encoder: LazyTextEncoder,
    *,
    context_length: int,
    **overrides: Any,
) -> MaskedWordModel:
    """A preset's image tower with an ICMLM's fusion and heads on its grid, with random weights.

    ``name`` and ``overrides`` are those of :func:`create_model`.
    """
    preset = tailored_preset(name, overrides, context_length=context_length)
    visual = build_image_tower(preset, grid_only=True)
    return MaskedWordModel(visual, make_fusion, masking, text_encoder, **sizes_of(preset))
