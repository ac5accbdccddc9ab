"""Tags of pictures: which words they are, and their cross entropy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from fastclip.comm.ranks import Ranks
from fastclip.data.fields.offsets import row_offsets
from fastclip.data.text.content_words import (
    count_content_words,
    most_frequent,
    open_pipeline,
    read_words,
)
from fastclip.data.text.tag_words import TagWords
from fastclip.errors import UserError, check_flags, expand_home
from fastclip.loss import linear_sigmoid_cross_entropy
from fastclip.models.linear_head import LinearHead
from fastclip.objectives.base import MicroBatch
from fastclip.objectives.texts import Texts


@dataclass(kw_only=True)
class TagCountOptions:
    """Flags of objectives whose tags are words."""

    num_tags: int = 5000
    """Most tags: the most frequent words, or the first of --tag-words."""
    tag_min_count: int = 1
    """How often a tag must occur in the training data at least."""

    def __post_init__(self) -> None:
        check_flags(self, ("num_tags", "tag_min_count"), "1 or more", lambda n: n >= 1)


@dataclass(kw_only=True)
class TagOptions(TagCountOptions):
    """Flags of objectives whose tags are words of captions."""

    pos_pipeline: str | None = None
    """Pipeline of spaCy that finds nouns, adjectives and verbs: an installed one's name or a
    folder."""
    tag_words: str | None = None
    """File of the tags, one a line, in the place of a pipeline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pos_pipeline is not None and self.tag_words is not None:
            raise UserError("--pos-pipeline and --tag-words both say which words are tags")
        if self.tag_words is not None and self.tag_min_count > 1:
            raise UserError(
                f"--tag-min-count is {self.tag_min_count}, which does nothing with --tag-words: "
                "the file's words are taken as they are"
            )


def learn_words(options: TagOptions, texts: Texts, objective: str) -> list[str]:
    """The tags among the words of captions, the most frequent first."""
    if options.tag_words is not None:
        path = expand_home(options.tag_words, "--tag-words")
        try:
            with path.open(encoding="utf-8") as lines:
                words = read_words(lines, options.num_tags)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--tag-words {path} cannot be read: {error}") from error
        if not words:
            raise UserError(f"--tag-words {path} holds no word")
        if not any(map(TagWords(words).present, texts.captions())):
            raise UserError(f"--tag-words {path} holds no word of the training data's captions")
        return words
    if options.pos_pipeline is None:
        raise UserError(
            f"--objective {objective} needs --pos-pipeline, a pipeline of spaCy, or --tag-words, "
            "a file of words"
        )
    pipeline = open_pipeline(options.pos_pipeline)
    counts = Counter(caption for captions in texts.captions() for caption in captions)
    found = count_content_words(counts, pipeline)
    return _not_empty(most_frequent(found, options.num_tags, options.tag_min_count), options)


def learn_tags(options: TagCountOptions, texts: Texts) -> list[str]:
    """The records' own tags in lower case, the most frequent first."""
    counts = Counter(tag.strip().lower() for tags in texts.tags() for tag in set(tags))
    return _not_empty(most_frequent(counts, options.num_tags, options.tag_min_count), options)


def _not_empty(words: list[str], options: TagCountOptions) -> list[str]:
    if not words:
        raise UserError(
            f"--tag-min-count is {options.tag_min_count}: no word of the training data is a tag "
            "that often"
        )
    return words


def mark_tags(
    batch: Sequence[MicroBatch], words: TagWords, source: Literal["captions", "tags"], ranks: Ranks
) -> float:
    """Pictures of the global batch; leaves each micro-batch's tags in two columns.

    ``tag_offsets`` int64 ``[b + 1]`` and ``tag_numbers`` int64 ``[entries]``: a picture has the
    tags that any of its ``captions_said`` has as a word, or that its ``tags`` are.
    """
    for micro_batch in batch:
        if source == "captions":
            found = [words.present(texts) for texts in micro_batch["captions_said"]]
        else:
            found = [words.listed(tags) for tags in micro_batch["tags"]]
        set_tags(micro_batch, found)
    return count_pictures(batch, ranks)


def set_tags(micro_batch: MicroBatch, found: Iterable[Sequence[int]]) -> None:
    """The columns of :func:`mark_tags` from the numbers of each picture's tags."""
    rows = list(found)
    micro_batch["tag_offsets"] = row_offsets([len(row) for row in rows])
    numbers = [number for row in rows for number in row]
    micro_batch["tag_numbers"] = torch.tensor(numbers, dtype=torch.int64)


def count_pictures(batch: Sequence[MicroBatch], ranks: Ranks) -> float:
    """Pictures of the global batch."""
    return ranks.total([sum(len(micro_batch["image"]) for micro_batch in batch)])[0]


def tag_sum(
    head: LinearHead, pooled: Tensor, micro_batch: MicroBatch, count: float, workspace_bytes: int
) -> Tensor:
    """Binary cross entropy of all tags of a micro-batch's pictures over ``count``; 0 where 0.

    ``pooled`` ``[b, width]``. Each picture's loss is a sum over tags, as in Sariyildiz et al. 2020.
    """
    target = (micro_batch["tag_offsets"], micro_batch["tag_numbers"])
    take = partial(_tags_loss, target, workspace_bytes)
    return head(pooled, take) * (1 / count if count else 0.0)


def _tags_loss(
    target: tuple[Tensor, Tensor],
    workspace_bytes: int,
    pooled: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    return linear_sigmoid_cross_entropy(
        pooled, weight, target, bias, reduction="sum", workspace_bytes=workspace_bytes
    )
