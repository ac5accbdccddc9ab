"""Multi-label classification as VirTex has it: one softmax of all classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import LABELS, PICTURE
from fastclip.data.tags import ClassTags, TagSource, WordTags
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError
from fastclip.models.tagger import Activation
from fastclip.objectives.backbone import BackboneOptions
from fastclip.objectives.base import Learned, Parts
from fastclip.objectives.learned_classes import learn_classes
from fastclip.objectives.tag_prediction import TagPrediction
from fastclip.objectives.tag_targets import TagCountOptions, learn_tags
from fastclip.objectives.texts import Texts


@dataclass(kw_only=True)
class MultilabelOptions(TagCountOptions, BackboneOptions):
    """Flags of multi-label classification."""

    tags_from: Literal["labels", "tags"] = "labels"
    """What says which classes a picture has: its labels, or its own list of tags."""

    def __post_init__(self) -> None:
        TagCountOptions.__post_init__(self)
        BackboneOptions.__post_init__(self)
        for name in ("num_tags", "tag_min_count"):
            if self.tags_from == "labels" and getattr(self, name) != getattr(TagCountOptions, name):
                raise UserError(
                    f"--{name.replace('_', '-')} does nothing with --tags-from labels: all classes "
                    "are predicted"
                )


class MultilabelClassification(TagPrediction):
    """A softmax of all classes under a picture's own, 1/k each; it is no sigmoid a class.

    A class that is named as background is never a target.
    """

    Options: ClassVar[type] = MultilabelOptions
    summary = "predict a picture's labels or tags, one softmax of all (not a sigmoid each)"
    paper = "Desai and Johnson 2021 (VirTex, multilabel classification), arXiv 2006.06666"
    fields = (PICTURE, LABELS)
    activation: ClassVar[Activation] = "softmax"

    @classmethod
    def learn(
        cls, options: MultilabelOptions, tokenizer: Tokenizer, texts: Texts, ranks: Ranks
    ) -> Learned:
        if options.tags_from == "tags":
            return {"tags": learn_tags(options, texts)}
        instead = "; --tags-from tags takes the records' tags"
        return {"tags": learn_classes(texts, "--objective multilabel_classification", instead)}

    def open_tags(self, options: Any, parts: Parts) -> TagSource:
        names = parts.learned["tags"]
        return ClassTags(names) if options.tags_from == "labels" else WordTags(names, "tags")
