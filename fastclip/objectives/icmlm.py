"""ICMLM: foresee one masked word of a caption from the picture and the caption's other words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTION, CAPTIONS, MASK_SEED, PICTURE
from fastclip.data.text.interface import Tokenizer
from fastclip.data.text.masking import WordMasking
from fastclip.data.text.tag_words import TagWords
from fastclip.data.text.word_piece import WordPieceTokenizer
from fastclip.errors import UserError
from fastclip.models.lazy_text_encoder import LazyTextEncoder
from fastclip.models.masked_word_filler import MaskedWordFiller
from fastclip.models.masked_word_model import MaskedWordModel
from fastclip.models.options import build_masked_word_model
from fastclip.models.text_encoder import TextEncoder, open_text_encoder
from fastclip.objectives.backbone import check_backbone, tower_and_rest
from fastclip.objectives.base import Learned, MicroBatch, Objective, Part, Parts
from fastclip.objectives.frozen_encoder import encoder_tokenizer, open_encoder
from fastclip.objectives.icmlm_options import IcmlmOptions
from fastclip.objectives.masked_words import MaskedWordLosses, mask_captions
from fastclip.objectives.tag_targets import learn_words, mark_tags
from fastclip.objectives.texts import Texts
from fastclip.ops import dispatch


class Icmlm(Objective):
    """What both forms share; a subclass builds the fusion.

    Sariyildiz et al., 2020: the captions' encoder is frozen, the image tower learns by the word
    that is missing, and by tags (TP_Postag), which are the words that are masked. A reconstruction:
    the authors' code is not public. A loss is the mean over the global batch's masked words, a
    picture's tags count as a sum.
    """

    paper = "Sariyildiz, Perez and Larlus 2020 (ICMLM), arXiv 2008.01392"
    fields = (PICTURE, CAPTION, CAPTIONS, MASK_SEED)
    fills_masks = True
    name: ClassVar[str]

    options: IcmlmOptions
    model: MaskedWordModel
    frozen: TextEncoder | None = None

    def __init__(self, options: IcmlmOptions, parts: Parts):
        self.options = options
        learned = parts.learned
        if not learned:
            raise UserError("learned.json, which names the words that are masked, is missing")
        width = learned["width"]
        if width % options.fusion_heads:
            raise UserError(
                f"--fusion-heads is {options.fusion_heads}, expected a divisor of {width}, the "
                "width of --text-encoder"
            )
        self.words = TagWords(learned["words"])
        assert isinstance(parts.tokenizer, WordPieceTokenizer)
        masking = WordMasking(parts.tokenizer, self.words, options.masked_vocabulary)
        if parts.open_teacher is not None:
            self.frozen = open_text_encoder(options.text_encoder)
        encoder = LazyTextEncoder(options.text_encoder, learned["fingerprint"], self.frozen)
        self.model = build_masked_word_model(
            parts.model, parts.tokenizer, partial(self.build_fusion, width), masking, encoder
        )
        weight = options.tag_loss_weight
        self.network = MaskedWordLosses(self.model, weight, parts.workspace_bytes)
        check_backbone(options, self.model)

    @abstractmethod
    def build_fusion(self, width: int, grid_width: int) -> nn.Module:
        """The module that joins a grid with a caption's states of a ``width``."""

    @classmethod
    def own_tokenizer(cls, options: IcmlmOptions, context_length: int | None) -> Tokenizer:
        return encoder_tokenizer(open_encoder(options, cls.name), context_length)

    @classmethod
    def learn(
        cls, options: IcmlmOptions, tokenizer: Tokenizer, texts: Texts, ranks: Ranks
    ) -> Learned:
        """The words that are masked, and what the encoder is."""
        encoder = open_encoder(options, cls.name)
        words = learn_words(options, texts, cls.name)
        assert isinstance(tokenizer, WordPieceTokenizer)
        masking = WordMasking(tokenizer, TagWords(words), options.masked_vocabulary)
        if not masking.num_maskable:
            raise UserError(
                f"--masked-vocabulary is pieces: none of the {len(words)} words is one piece of "
                "--text-encoder's tokenizer"
            )
        return {"words": words, "width": encoder.width, "fingerprint": encoder.fingerprint}

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        for micro_batch in batch:
            micro_batch.pop("captions_text", None)  # ids that nothing reads
        return {
            "masked_words": mask_captions(batch, self.model, ranks),
            "pictures": mark_tags(batch, self.words, "captions", ranks),
        }

    def given(self, micro_batch: MicroBatch) -> dict[str, Any]:
        """The encoder's states of the masked captions, ``[m, longest, width]``."""
        assert self.frozen is not None
        ids = micro_batch["text"]
        if not len(ids):
            return {"states": torch.zeros(0, 1, self.frozen.width, device=ids.device)}
        longest = int(ids.ne(self.frozen.pad_id).sum(1).max())
        return {"states": self.frozen.states(ids)[:, :longest]}

    def groups(self) -> Iterable[Part]:
        return tower_and_rest(self.network, self.options, "fusion")

    def identity(self) -> dict[str, Any]:
        """The encoder counts by its weights, wherever it lies."""
        shared = super().identity()
        del shared["--text-encoder"]
        return {**shared, "the text encoder's weights": self.frozen and self.frozen.fingerprint}

    def trained(self) -> dict[str, Any]:
        """The words, the encoder that reads captions, and what fills a sentence's mask by them.

        The encoder is opened when it is first used.
        """
        return {
            "words": list(self.words.words),
            "text_encoder": self.model.text_encoder,
            "filler": MaskedWordFiller(self.model),
        }

    @classmethod
    def check_backend(cls, device: torch.device) -> None:
        for operation in ("linear_cross_entropy", "linear_sigmoid_cross_entropy"):
            dispatch.resolve_backend(operation, "auto", device)
