"""Tokenizers: text in, int64 token ids out, with a fingerprint of what defines them."""

from fastclip.data.text.interface import Tokenizer
from fastclip.data.text.saved import load_tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]
