"""Tags that are the clusters of captions, by a frozen text encoder's states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from fastclip.data.fields import CAPTIONS
from fastclip.data.progress import Progress
from fastclip.data.tags import TagSource
from fastclip.data.text import Tokenizer
from fastclip.errors import UserError
from fastclip.models.lazy_text_encoder import LazyTextEncoder
from fastclip.models.text_encoder import TextEncoder

MOST_KNOWN = 5_000_000
"""Texts whose clusters are remembered, at some 150 bytes each."""
_SEED = 0
_ROWS = 1024


class CaptionClusters(TagSource):
    """A record has the cluster of each of its captions.

    Args:
        centroids: ``[K, width]`` fp32.
        names: of the clusters; of each the caption nearest to it.
        tokenizer: the encoder's.
        encoder: opened when it is first asked.
    """

    field = CAPTIONS

    def __init__(
        self,
        centroids: Tensor,
        names: Sequence[str],
        tokenizer: Tokenizer,
        encoder: LazyTextEncoder,
    ) -> None:
        self.centroids = centroids
        self.names = list(names)
        self.tokenizer, self.encoder = tokenizer, encoder
        self._known: dict[bytes, int] = {}

    def numbers(self, records: Sequence[Sequence[str]]) -> list[list[int]]:
        every = [text for texts in records for text in texts]
        found = [self.nearest(self.tokenizer(every[i : i + _ROWS])) for i in _starts(every)]
        each = iter([number for part in found for number in part.tolist()])
        return [sorted({next(each) for _ in texts}) for texts in records]

    def nearest(self, ids: Tensor) -> Tensor:
        """The cluster of each text of ids int64 ``[b, L]``: int64 ``[b]`` on their device.

        Remembered by text, up to :data:`MOST_KNOWN`: the encoder reads each once.
        """
        host = ids.cpu()
        keys = [blake2b(row.numpy().tobytes(), digest_size=16).digest() for row in host]
        found = {key: self._known[key] for key in keys if key in self._known}
        new = {key: row for row, key in enumerate(keys) if key not in found}
        if new:
            sentences = self.encoder.open().sentences(host[list(new.values())])
            numbers = dict(zip(new, _nearest(sentences, self.centroids).tolist(), strict=True))
            found |= numbers
            if len(self._known) + len(numbers) <= MOST_KNOWN:
                self._known |= numbers
        return torch.tensor([found[key] for key in keys], dtype=torch.int64, device=ids.device)


def find_clusters(
    captions: Mapping[str, int], encoder: TextEncoder, tokenizer: Tokenizer, num_clusters: int
) -> tuple[Tensor, list[str]]:
    """Centroids ``[K, width]`` fp32 of the captions' sentence states, and their names.

    ``captions`` and how often each of them occurs, which is its weight. scikit-learn's k-means over
    mini-batches, from a fixed seed. Raises :class:`UserError` for more clusters than captions.
    """
    from sklearn.cluster import MiniBatchKMeans

    texts = list(captions)
    if num_clusters > len(texts):
        raise UserError(
            f"--num-clusters is {num_clusters}, expected at most the {len(texts)} different "
            "captions of the training data"
        )
    found = []
    with Progress("encoding captions", len(texts), "caption") as bar:
        for start in _starts(texts):
            part = texts[start : start + _ROWS]
            found.append(encoder.sentences(tokenizer(part)))
            bar.update(len(part))
    sentences = torch.cat(found)
    kmeans = MiniBatchKMeans(num_clusters, random_state=_SEED)
    kmeans.fit(sentences.numpy(), sample_weight=np.array(list(captions.values())))
    centroids = torch.from_numpy(kmeans.cluster_centers_).float()
    return centroids, [texts[row] for row in _nearest(centroids, sentences).tolist()]


def _starts(texts: Sequence[str]) -> range:
    return range(0, len(texts), _ROWS)


def _nearest(rows: Tensor, points: Tensor) -> Tensor:
    """Which of ``points [m, D]`` is nearest to each of ``rows [n, D]``, int64 ``[n]``.

    In fp64, so that it does not hang on which other rows are asked for beside one.
    """
    points = points.double()
    squares = points.square().sum(1)
    parts = [(squares - 2 * part.double() @ points.T).argmin(1) for part in rows.split(_ROWS)]
    return torch.cat(parts) if parts else rows.new_zeros(0, dtype=torch.int64)
