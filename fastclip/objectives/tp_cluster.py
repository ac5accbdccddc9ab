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
from fastclip.errors import check_flags
from fastclip.models.lazy_text_encoder import LazyTextEncoder
from fastclip.objectives.backbone import BackboneOptions
from fastclip.objectives.base import Learned, MicroBatch, Parts
from fastclip.objectives.caption_clusters import CaptionClusters, find_clusters
from fastclip.objectives.frozen_encoder import EncoderOptions, encoder_tokenizer, open_encoder
from fastclip.objectives.tag_prediction import TagPrediction
from fastclip.objectives.tag_targets import count_pictures
from fastclip.objectives.texts import Texts


@dataclass(kw_only=True)
class TpClusterOptions(BackboneOptions, EncoderOptions):
    """Flags of TP_Cluster; the encoder's [CLS] states are what is clustered."""

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
    name = "tp_cluster"
    fields = (PICTURE, CAPTIONS)

    tags: CaptionClusters

    def __init__(self, options: TpClusterOptions, parts: Parts):
        super().__init__(options, parts)
        if parts.open_teacher is not None:
            self.frozen = self.tags.encoder.open()

    @classmethod
    def own_tokenizer(cls, options: TpClusterOptions, context_length: int | None) -> Tokenizer:
        """The text encoder's."""
        return encoder_tokenizer(open_encoder(options, cls.name), context_length)

    @classmethod
    def learn(
        cls, options: TpClusterOptions, tokenizer: Tokenizer, texts: Texts, ranks: Ranks
    ) -> Learned:
        counts = Counter(caption for captions in texts.captions() for caption in captions)
        encoder = open_encoder(options, cls.name).to(ranks.device)
        centroids, names = find_clusters(counts, encoder, tokenizer, options.num_clusters)
        return {"tags": names, "centroids": centroids, "fingerprint": encoder.fingerprint}

    def open_tags(self, options: TpClusterOptions, parts: Parts) -> CaptionClusters:
        learned = parts.learned
        encoder = LazyTextEncoder(options.text_encoder, learned["fingerprint"])
        return CaptionClusters(learned["centroids"], learned["tags"], parts.tokenizer, encoder)

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
        """The encoder counts by its weights, wherever it lies."""
        shared = super().identity()
        del shared["--text-encoder"]
        return {**shared, "the text encoder's weights": self.tags.encoder.fingerprint}
