"""Reads a tokenizer that :meth:`Tokenizer.save` wrote."""

import json
from pathlib import Path

from fastclip.data.text.bpe import BpeTokenizer
from fastclip.data.text.interface import Tokenizer
from fastclip.data.text.word_piece import WordPieceTokenizer
from fastclip.data.text.words import WordTokenizer
from fastclip.errors import UserError

_KINDS: dict[str, type[Tokenizer]] = {
    cls.kind: cls for cls in (BpeTokenizer, WordTokenizer, WordPieceTokenizer)
}


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer saved in ``path``; raises :class:`UserError` if it holds none."""
    try:
        state = json.loads(path.read_text())
        return _KINDS[state.pop("kind")](**state)
    except OSError as error:
        raise UserError(f"cannot read tokenizer {path}: {error.strerror or error}") from error
    except Exception as error:  # the tokenizers library raises it bare
        raise UserError(f"{path} is not a saved tokenizer: {error!r}") from error
