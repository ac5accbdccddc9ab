"""What every tokenizer offers."""

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch

from fastclip.whole_files import write_whole


class Tokenizer(ABC):
    """Texts to int64 ids of a fixed length; defined whole by :meth:`state`."""

    kind: str
    vocab_size: int
    """Ids are below this."""
    context_length: int
    pad_id: int
    eot_id: int | None
    """Id that ends every text, the highest of all; None for a bag of features."""

    @abstractmethod
    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Ids, int64 [len(texts), context_length]; longer texts are cut."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What defines the tokenizer, as JSON values: the arguments of its constructor."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what defines the tokenizer."""
        text = json.dumps({"kind": self.kind, **self.state()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write a JSON file that :func:`fastclip.data.text.load_tokenizer` reads."""
        write_whole(path, json.dumps({"kind": self.kind, **self.state()}))
