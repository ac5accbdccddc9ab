"""The frozen text encoder that an objective is told by ``--text-encoder``, and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from fastclip.data.text.word_piece import WordPieceTokenizer
from fastclip.errors import UserError
from fastclip.models.text_encoder import TextEncoder, open_text_encoder

CONTEXT_LENGTH = 32


@dataclass(kw_only=True)
class EncoderOptions:
    """Flags of objectives that read captions by a frozen BERT."""

    text_encoder: str = ""
    """Frozen BERT that reads captions: a folder of transformers or a name on its hub."""


def open_encoder(options: EncoderOptions, objective: str) -> TextEncoder:
    """The encoder. Raises :class:`UserError` where none is named or it cannot be opened."""
    if not options.text_encoder:
        raise UserError(
            f"--objective {objective} needs --text-encoder, the folder or name of a BERT"
        )
    return open_text_encoder(options.text_encoder)


def encoder_tokenizer(encoder: TextEncoder, context_length: int | None) -> WordPieceTokenizer:
    """The encoder's tokenizer; refuses texts longer than the encoder reads."""
    length = context_length or min(CONTEXT_LENGTH, encoder.longest)
    if length > encoder.longest:
        raise UserError(
            f"--context-length is {length}, expected at most {encoder.longest}, the pieces that "
            "--text-encoder reads"
        )
    return WordPieceTokenizer(encoder.definition, length)
