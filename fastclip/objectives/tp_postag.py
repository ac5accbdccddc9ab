"""TP_Postag: predict the nouns, adjectives and verbs of a picture's captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTIONS, PICTURE
from fastclip.data.tags import WordTags
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError
from fastclip.objectives.backbone import BackboneOptions
from fastclip.objectives.base import Learned, Parts
from fastclip.objectives.tag_prediction import TagPrediction
from fastclip.objectives.tag_targets import TagOptions, learn_tags, learn_words
from fastclip.objectives.texts import Texts


@dataclass(kw_only=True)
class TpPostagOptions(TagOptions, BackboneOptions):
    """Flags of TP_Postag."""

    tags_from: Literal["captions", "tags"] = "captions"
    """What says which tags a picture has: the words of all its captions, or its own list of
    tags."""

    def __post_init__(self) -> None:
        TagOptions.__post_init__(self)
        BackboneOptions.__post_init__(self)
        for name in ("pos_pipeline", "tag_words"):
            if self.tags_from == "tags" and getattr(self, name) is not None:
                raise UserError(
                    f"--{name.replace('_', '-')} does nothing with --tags-from tags: the records' "
                    "own tags are taken as they are"
                )


class TpPostag(TagPrediction):
    """Sigmoids of the most frequent words of a kind, or of the records' own tags.

    A reconstruction: the size of ICMLM's tag list is not known here.
    """

    Options: ClassVar[type] = TpPostagOptions
    summary = "predict the nouns, adjectives and verbs of a picture's captions, or its tags"
    paper = "Sariyildiz et al. 2020 (ICMLM, TP_Postag), arXiv 2008.01392"
    fields = (PICTURE, CAPTIONS)

    @classmethod
    def learn(
        cls, options: TpPostagOptions, tokenizer: Tokenizer, texts: Texts, ranks: Ranks
    ) -> Learned:
        if options.tags_from == "tags":
            return {"tags": learn_tags(options, texts)}
        return {"tags": learn_words(options, texts, "tp_postag")}

    def open_tags(self, options: Any, parts: Parts) -> WordTags:
        return WordTags(parts.learned["tags"], options.tags_from)
