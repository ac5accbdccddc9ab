"""From a preset to the image tower and the decoder of a model that writes or fills captions."""

from dataclasses import fields, replace

from fastclip.errors import UserError
from fastclip.models.build_towers import build_image_tower
from fastclip.models.caption_decoder import CaptionDecoder
from fastclip.models.presets import DecoderShape, Preset
from fastclip.models.tower import ImageTower


def build_tower_and_decoder(
    preset: Preset,
    vocab_size: int,
    shape: DecoderShape,
    dropout: float,
    pre_norm: bool,
    bidirectional: bool = False,
) -> tuple[ImageTower, CaptionDecoder]:
    """A tower of a grid alone, and VirTex's textual head on it, for ``vocab_size`` ids."""
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


def decoder_shape(
    shape: DecoderShape, width: int | None, layers: int | None, heads: int | None
) -> DecoderShape:
    """``shape`` with what is not None in place of its fields; refuses what cannot be built."""
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


def end_of_text(eot_id: int | None) -> int:
    """The id that ends a text; refuses a tokenizer that has none."""
    if eot_id is None:
        raise UserError(
            "--tokenizer: a bag of words has neither an order nor an end of text, which a model "
            "that writes captions needs; accepted: bpe or the path of a merges file."
        )
    return eot_id
