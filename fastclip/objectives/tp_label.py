"""TP_Label: predict the labels that the data set itself has."""

from __future__ import annotations

from typing import Any

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import LABELS, PICTURE
from fastclip.data.tags import ClassTags
from fastclip.data.text.interface import Tokenizer
from fastclip.objectives.base import Learned, Parts
from fastclip.objectives.learned_classes import learn_classes
from fastclip.objectives.tag_prediction import TagPrediction
from fastclip.objectives.texts import Texts


class TpLabel(TagPrediction):
    """Sigmoids of the data set's classes, such as COCO's 80 (a reconstruction)."""

    summary = "predict a picture's labels, a sigmoid each"
    paper = "Sariyildiz et al. 2020 (ICMLM, TP_Label), arXiv 2008.01392"
    fields = (PICTURE, LABELS)

    @classmethod
    def learn(cls, options: Any, tokenizer: Tokenizer, texts: Texts, ranks: Ranks) -> Learned:
        return {"tags": learn_classes(texts, "--objective tp_label")}

    def open_tags(self, options: Any, parts: Parts) -> ClassTags:
        return ClassTags(parts.learned["tags"])
