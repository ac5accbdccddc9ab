"""CLIP's byte-pair encoding, run by the ``tokenizers`` library: CLIP's own merges or trained ones.

Ids are laid out as CLIP's: 256 bytes, the same 256 ending a word, one id a merge, start, end.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from fastclip.data.text.cleaning import clean, without_accents
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError

WORD_END = "</w>"
CLIP_NUM_MERGES = 48_894
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class BpeTokenizer(Tokenizer):
    """Byte-level BPE: start, pieces, end, then padding; the last id kept of a cut text is the end.

    ``pad="zero"`` pads with id 0 as CLIP does, ``pad="eot"`` repeats the end. ``strip_accents``
    leaves accents out; without ``keep_end`` a cut text has one more piece in place of its end. Both
    are VirTex's.
    """

    kind = "bpe"

    def __init__(
        self,
        merges: Iterable[tuple[str, str]],
        context_length: int = 77,
        pad: Literal["zero", "eot"] = "zero",
        strip_accents: bool = False,
        keep_end: bool = True,
    ) -> None:
        if context_length < 3:
            raise UserError(f"--context-length is {context_length}, expected 3 or more")
        self.merges = [(first, second) for first, second in merges]
        self.context_length = context_length
        self.pad = pad
        self.strip_accents = strip_accents
        self.keep_end = keep_end
        symbols = _byte_symbols()
        pieces = [*symbols, *(s + WORD_END for s in symbols), *(a + b for a, b in self.merges)]
        # Two merges can give one piece; the later id is the one in use, as in CLIP's own table.
        self.vocab = {piece: number for number, piece in enumerate(pieces)}
        self.sot_id = len(pieces)
        self.eot_id = len(pieces) + 1
        self.vocab_size = len(pieces) + 2
        self.pad_id = self.eot_id if pad == "eot" else 0
        self._bpe = _pipeline(
            models.BPE(vocab=self.vocab, merges=self.merges, end_of_word_suffix=WORD_END)
        )

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Ids, int64 [len(texts), context_length]."""
        ids = torch.full((len(texts), self.context_length), self.pad_id, dtype=torch.int64)
        encodings = self._bpe.encode_batch_fast(list(_cleaned(texts, self.strip_accents)))
        for row, encoding in enumerate(encodings):
            whole = [self.sot_id, *encoding.ids, self.eot_id]
            kept = whole[: self.context_length]
            if self.keep_end:
                kept[-1] = self.eot_id
            ids[row, : len(kept)] = torch.tensor(kept)
        return ids

    def pieces(self, text: str) -> list[int]:
        """The ids of ``text`` alone, neither cut nor padded."""
        (cleaned,) = _cleaned([text], self.strip_accents)
        return self._bpe.encode(cleaned).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The cleaned text of ``ids``, up to the first end."""
        pieces = []
        for number in map(int, ids):
            if number == self.eot_id:
                break
            if number != self.sot_id:
                pieces.append(number)
        text = self._bpe.decode(pieces)
        return text.replace(WORD_END, " ").strip()

    def state(self) -> dict[str, Any]:
        """Merges, context length, padding, and what of VirTex's ways of reading is on."""
        merges = [list(pair) for pair in self.merges]
        state = {"merges": merges, "context_length": self.context_length, "pad": self.pad}
        state |= {"strip_accents": True} if self.strip_accents else {}
        return state | ({} if self.keep_end else {"keep_end": False})


def train_bpe(
    captions: Iterable[str],
    vocab_size: int = 4096,
    context_length: int = 32,
    pad: Literal["zero", "eot"] = "zero",
    strip_accents: bool = False,
    keep_end: bool = True,
) -> BpeTokenizer:
    """A tokenizer of at most ``vocab_size`` ids, its merges learned from ``captions``."""
    if vocab_size < 514:
        raise UserError(f"--vocab-size is {vocab_size}, expected 514 (bytes alone) or more")
    symbols = _byte_symbols()
    bpe = _pipeline(models.BPE(end_of_word_suffix=WORD_END))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        min_frequency=2,
        initial_alphabet=symbols,
        # Else the trainer numbers the symbols that end words in a random order, which decides ties.
        special_tokens=[symbol + WORD_END for symbol in symbols],
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    bpe.train_from_iterator(_cleaned(captions, strip_accents), trainer)
    merges = json.loads(bpe.to_str())["model"]["merges"]
    pairs = [tuple(pair) for pair in merges][: vocab_size - 514]
    return BpeTokenizer(pairs, context_length, pad, strip_accents, keep_end)


def load_clip_bpe(
    path: Path, context_length: int = 77, strip_accents: bool = False, keep_end: bool = True
) -> BpeTokenizer:
    """CLIP's tokenizer from its merges file (``bpe_simple_vocab_16e6.txt.gz``, or unpacked)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a merges file: {error}") from error
    lines = text.split("\n")[1 : CLIP_NUM_MERGES + 1]
    pairs = [tuple(line.split()) for line in lines if line]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{path} is not a merges file: expected two pieces a line after the first")
    merges = [(first, second) for first, second in pairs]
    return BpeTokenizer(merges, context_length, "zero", strip_accents, keep_end)


def _cleaned(texts: Iterable[str], strip_accents: bool) -> Iterator[str]:
    cleaned = map(clean, texts)
    return map(without_accents, cleaned) if strip_accents else cleaned


def _pipeline(model: models.BPE) -> tokenizers.Tokenizer:
    bpe = tokenizers.Tokenizer(model)
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _byte_symbols() -> list[str]:
    """The printable stand-in of each byte, printable bytes first: the order of CLIP's ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(others)]
