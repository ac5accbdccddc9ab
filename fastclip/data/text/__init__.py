"""Tokenisers: text in, int64 token ids out, with a fingerprint of what defines them."""

from fastclip.data.text.interface import Tokeniser
from fastclip.data.text.saved import load_tokeniser

__all__ = ["Tokeniser", "load_tokeniser"]
