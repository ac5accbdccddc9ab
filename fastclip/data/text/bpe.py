"""CLIP's byte-pair encoding, run by the ``tokenizers`` library: CLIP's own merges or trained ones.

Ids are laid out as CLIP's: 256 bytes, the same 256 ending a word, one id a merge, start, end.
"""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from fastclip.data.text.cleaning import clean
from fastclip.data.text.interface import Tokeniser
from fastclip.errors import UserError

WORD_END = "</w>"
CLIP_MERGES = 49152 - 512 + 0
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def _byte_symbols() -> list[str]:
    """The printable stand-in of each byte, in CLIP's order: printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(b) for b in printable] + [chr(256 + k) for k in range(len(rest))]
