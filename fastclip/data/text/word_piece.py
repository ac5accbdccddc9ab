"""The tokenizer of a BERT, kept whole in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import tokenizers
import torch

from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError

_CLS, _SEP, _PAD, _MASK = "[CLS]", "[SEP]", "[PAD]", "[MASK]"


class WordPieceTokenizer(Tokenizer):
    """``[CLS]``, pieces, ``[SEP]``, then padding; the last id kept of a cut text is ``[SEP]``.

    Args:
        definition: what the ``tokenizers`` library writes to a ``tokenizer.json``.
        context_length: ids a text, 3 or more.

    Normalization (lower case, accents) is the definition's own. A text that spells a special piece,
    such as "[PAD]", has its letters and signs, never the piece itself: padding and masks are where
    this class puts them alone. Unlike in other tokenizers the end, ``eot_id``, is not the highest
    id.
    """

    kind = "word_piece"

    def __init__(self, definition: str, context_length: int = 32) -> None:
        if context_length < 3:
            raise UserError(f"--context-length is {context_length}, expected 3 or more")
        self.definition = definition
        self.context_length = context_length
        self._pieces = tokenizers.Tokenizer.from_str(definition)
        self._pieces.no_padding()
        self._pieces.no_truncation()
        self._pieces.encode_special_tokens = True
        self.vocab_size = self._pieces.get_vocab_size()
        self.sot_id, self.eot_id, self.pad_id, self.mask_id = map(
            self._special, (_CLS, _SEP, _PAD, _MASK)
        )

    def _special(self, piece: str) -> int:
        number = self._pieces.token_to_id(piece)
        if number is None:
            raise UserError(f"the tokenizer has no {piece}, expected that of a BERT")
        return number

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Ids, int64 [len(texts), context_length]."""
        ids = torch.full((len(texts), self.context_length), self.pad_id, dtype=torch.int64)
        encodings = self._pieces.encode_batch_fast(list(texts), add_special_tokens=False)
        for row, encoding in enumerate(encodings):
            pieces = encoding.ids[: self.context_length - 2]
            ids[row, : len(pieces) + 2] = torch.tensor([self.sot_id, *pieces, self.eot_id])
        return ids

    def pieces(self, text: str) -> list[int]:
        """The ids of ``text`` alone, neither cut nor padded."""
        return self._pieces.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, up to the first end."""
        pieces: list[int] = []
        for number in map(int, ids):
            if number == self.eot_id:
                break
            pieces.append(number)
        return self._pieces.decode(pieces, skip_special_tokens=True)

    def state(self) -> dict[str, Any]:
        """The definition, without white space, and the context length."""
        return {
            "definition": json.dumps(json.loads(self.definition), ensure_ascii=False),
            "context_length": self.context_length,
        }
