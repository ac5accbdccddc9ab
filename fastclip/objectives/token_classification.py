"""Token classification: predict which tokens a caption has, in no order."""

from __future__ import annotations

from typing import Any, ClassVar

from fastclip.data.fields import CAPTION, PICTURE
from fastclip.data.tags import TokenTags
from fastclip.errors import UserError
from fastclip.models.tagger import Activation
from fastclip.objectives.base import MicroBatch, Parts
from fastclip.objectives.tag_prediction import TagPrediction


class TokenClassification(TagPrediction):
    """A softmax of the whole vocabulary under the set of the drawn caption's tokens, 1/k each."""

    summary = "predict the set of a caption's tokens, one softmax of all"
    paper = "Desai and Johnson 2021 (VirTex, token classification), arXiv 2006.06666"
    fields = (PICTURE, CAPTION)
    activation: ClassVar[Activation] = "softmax"
    # Tokens are those that a captioner writes, not a bag's hashed n-grams.
    in_order = True
    strip_accents = True
    # As VirTex's captions are cut: the last token kept is a word's, not the end.
    keep_end = False

    def __init__(self, options: Any, parts: Parts):
        super().__init__(options, parts)
        # One caption is drawn each time, though a picture has the tokens of all of them.
        self.fields = (PICTURE, CAPTION)

    def open_tags(self, options: Any, parts: Parts) -> TokenTags:
        if parts.tokenizer.eot_id is None:
            raise UserError(
                "--objective token_classification predicts the tokens of captions, which the "
                "hashed n-grams of --tokenizer words are not; expected bpe or a merges file"
            )
        return TokenTags(parts.tokenizer)

    def tags_of(self, micro_batch: MicroBatch) -> list[list[int]]:
        assert isinstance(self.tags, TokenTags)
        return self.tags.of_ids(micro_batch["text"])
