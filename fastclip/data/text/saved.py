"""Reads a tokeniser that :meth:`Tokeniser.save` wrote."""

import json
from pathlib import Path

from fastclip.data.text.bpe import BpeTokeniser
from fastclip.data.text.interface import Tokeniser
from fastclip.data.text.words import WordTokeniser
from fastclip.errors import UserError

_KINDS: dict[str, type[Tokeniser]] = {cls.kind: cls for cls in (BpeTokeniser, WordTokeniser)}


def load_tokeniser(path: Path) -> Tokeniser:
    """The tokeniser saved in ``path``; raises :class:`UserError` if it holds none."""
    try:
        state = json.loads(path.read_text())
        return _KINDS[state.pop("kind")](**state)
    except OSError as error:
        raise UserError(f"cannot read tokeniser {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a saved tokeniser: {error!r}") from error
