"""The tokenizer that a configuration asks for."""

import itertools

from fastclip.data.read_splits import read_captions
from fastclip.data.sources.spec import DataSpec
from fastclip.data.text.bpe import load_clip_bpe, train_bpe
from fastclip.data.text.interface import Tokenizer
from fastclip.data.text.words import train_words
from fastclip.errors import UserError, expand_home
from fastclip.models.named_presets import find_preset
from fastclip.models.presets import TextBag
from fastclip.objectives.base import Objective
from fastclip.training.config import TrainConfig

_CAPTIONS = 1_000_000
CLIP_LENGTH = 77


def build_tokenizer(cfg: TrainConfig, spec: DataSpec, objective: type[Objective]) -> Tokenizer:
    """Train a tokenizer on the captions of ``spec``, or read CLIP's merges from a file.

    ``auto`` is words and trigrams for a bag-of-tokens text tower and BPE for a transformer, and for
    objectives that predict words in their order; an objective may bring its own. A trained
    tokenizer sees at most the first million captions.
    """
    own = objective.own_tokenizer(cfg.objective, cfg.model.context_length)
    if own is not None:
        return own
    preset = find_preset(cfg.model.model)
    bag = isinstance(preset.text, TextBag)
    kind = cfg.data.tokenizer
    if kind == "auto":
        kind = "words" if bag and not objective.in_order else "bpe"
    # A bag's length counts n-grams, many to a word.
    length = min(preset.context_length, CLIP_LENGTH) if bag and kind != "words" else None
    length = cfg.model.context_length or length or preset.context_length
    if kind not in ("words", "bpe"):
        path = expand_home(kind, "--tokenizer")
        if not path.is_file():
            raise UserError(
                f"--tokenizer is {kind!r}, expected auto, bpe, words or the path of a merges file"
            )
        return load_clip_bpe(path, length, objective.strip_accents, objective.keep_end)
    captions = itertools.islice(read_captions(spec), _CAPTIONS)
    if kind == "words":
        return train_words(
            captions,
            max_words=cfg.data.vocab_size,
            buckets=cfg.data.ngram_buckets,
            ngrams=cfg.data.ngrams,
            context_length=length,
        )
    return train_bpe(
        captions,
        cfg.data.vocab_size,
        length,
        strip_accents=objective.strip_accents,
        keep_end=objective.keep_end,
    )
