"""Tokens made once a text, for captions that are the same in every epoch."""

import sys
from typing import Any

import numpy as np
import torch

from fastclip.data.text.interface import Tokenizer

MAX_BYTES = 64 * 2**20
# What a dict's entry, a bytes object and its length cost beside the text and the ids themselves.
_ENTRY_BYTES = 160


class RememberedTokenizer(Tokenizer):
    """Gives the ids of ``tokenizer`` and remembers them by text.

    It stands for ``tokenizer`` everywhere: same ids, state and fingerprint. Once ``max_bytes`` are
    taken nothing more is remembered: every text comes once an epoch, so that dropping the oldest
    would drop each just before it comes again.
    """

    def __init__(self, tokenizer: Tokenizer, max_bytes: int = MAX_BYTES) -> None:
        self.tokenizer = tokenizer
        self.max_bytes = max_bytes
        self.kind = tokenizer.kind
        self.vocab_size = tokenizer.vocab_size
        self.context_length = tokenizer.context_length
        self.pad_id, self.eot_id = tokenizer.pad_id, tokenizer.eot_id
        self.nbytes = 0
        self._rows: dict[str, np.ndarray] = {}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Ids, int64 [len(texts), context_length]."""
        unknown = list(dict.fromkeys(text for text in texts if text not in self._rows))
        new: dict[str, np.ndarray] = {}
        if unknown:
            for text, row in zip(unknown, self.tokenizer(unknown).numpy(), strict=True):
                new[text] = self._without_padding(row)
        ids = np.full((len(texts), self.context_length), self.pad_id, dtype=np.int64)
        for out, text in zip(ids, texts, strict=True):
            row = new[text] if text in new else self._rows[text]
            out[: len(row)] = row
        self._remember(new)
        return torch.from_numpy(ids)

    def _without_padding(self, row: np.ndarray) -> np.ndarray:
        """The ids before the padding, int32: half the bytes, and ids are far below 2**31."""
        used = np.flatnonzero(row != self.pad_id)
        return row[: used[-1] + 1 if len(used) else 0].astype(np.int32)

    def _remember(self, new: dict[str, np.ndarray]) -> None:
        for text, row in new.items():
            size = sys.getsizeof(text) + sys.getsizeof(row) + _ENTRY_BYTES
            if self.nbytes + size <= self.max_bytes:
                self.nbytes += size
                self._rows[text] = row

    def state(self) -> dict[str, Any]:
        """That of the tokenizer: what is remembered changes nothing."""
        return self.tokenizer.state()
