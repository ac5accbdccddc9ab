"""TP_Cluster: predict which clusters of sentences a picture's captions fall into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTIONS, PICTURE
from fastclip.data.text.interface import Tokenizer
from fastclip.data.text.word_piece import WordPieceTokenizer
from fastclip.errors import UserError, check_flags
from fastclip.models.caption_clusters import CaptionClusters, find_clusters
from fastclip.models.text_encoder import open_text_encoder
from fastclip.objectives.base import Learned, MicroBatch, Parts, Texts
from fastclip.objectives.tag_prediction import TaggerOptions, TagPrediction
from fastclip.objectives.tag_targets import count_pictures

_LENGTH = 32


@dataclass(kw_only=True)
class TpClusterOptions(TaggerOptions):
    """Flags of TP_Cluster."""

    text_encoder: str = ""
    """The frozen BERT whose [CLS] states are clustered: a folder of transformers or a name on its
    hub."""
    num_clusters: int = 1000
    """Clusters of captions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flags(self, ("num_clusters",), "1 or more", lambda n: n >= 1)


class TpCluster(TagPrediction):
    """Sigmoids of clusters that k-means finds among the states of captions, before training.

    A reconstruction: the number of ICMLM's clusters is not known here.
    """

    Options: ClassVar[type] = TpClusterOptions
    summary = "predict the clusters of a picture's captions, by a frozen text encoder"
    paper = "Sariyildiz et al. 2020 (ICMLM, TP_Cluster), arXiv 2008.01392"
    fields = (PICTURE, CAPTIONS)

    tags: CaptionClusters

    def __init__(self, options: TpClusterOptions, parts: Parts):
        super().__init__(options, parts)
        if parts.open_teacher is not None:
            self.frozen = self.tags.encoder

    @classmethod
    def own_tokenizer(cls, options: TpClusterOptions, context_length: int | None) -> Tokenizer:
        """The text encoder's."""
        if not options.text_encoder:
            raise UserError(
                "--objective tp_cluster needs --text-encoder: a folder of a BERT or a name on "
                "transformers' hub"
            )
        encoder = open_text_encoder(options.text_encoder)
        length = min(_LENGTH, encoder.longest) if context_length is None else context_length
        if length > encoder.longest:
            raise UserError(
                f"--context-length is {length}, expected at most the {encoder.longest} of "
                f"--text-encoder {options.text_encoder}"
            )
        return WordPieceTokenizer(encoder.definition, length)

    @classmethod
    def learn(
        cls, options: TpClusterOptions, tokenizer: Tokenizer, texts: Texts, ranks: Ranks
    ) -> Learned:
        counts = Counter(caption for captions in texts.captions() for caption in captions)
        encoder = open_text_encoder(options.text_encoder).to(ranks.device)
        centroids, names = find_clusters(counts, encoder, tokenizer, options.num_clusters)
        return {"tags": names, "centroids": centroids}

    def open_tags(self, options: TpClusterOptions, parts: Parts) -> CaptionClusters:
        learned = parts.learned
        return CaptionClusters(
            learned["centroids"], learned["tags"], parts.tokenizer, options.text_encoder
        )

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        return {"pictures": count_pictures(batch, ranks)}

    def given(self, micro_batch: MicroBatch) -> dict[str, Any]:
        """The pictures' clusters in the columns of ``tag_targets.set_tags``."""
        nearest = self.tags.nearest(micro_batch["captions_text"])
        lengths = micro_batch["captions_offsets"].diff()
        pictures = torch.arange(len(lengths), device=nearest.device).repeat_interleave(lengths)
        # Each once, by picture: two captions may be of one cluster.
        pairs = (pictures * len(self.tags.names) + nearest).unique()
        pictures, numbers = pairs // len(self.tags.names), pairs % len(self.tags.names)
        ends = pictures.bincount(minlength=len(lengths)).cumsum(0)
        return {"tag_offsets": F.pad(ends, (1, 0)), "tag_numbers": numbers}

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "the text encoder's weights": self.tags.encoder.fingerprint}
