"""All ranks' features with open_clip's gradients, for losses that make their own logits."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fastclip.comm import AllGather, Handshake, Peers, Shards


def gather_pair(
    image_features: Tensor,
    text_features: Tensor,
    local_loss: bool,
    gather_with_grad: bool,
    peers: Peers | None,
) -> tuple[Tensor, Tensor]:
    """Image and text rows of all ranks, ``[N, D]`` each; the inputs where there are no peers.

    With ``gather_with_grad`` every row carries the gradients of all ranks back to its owner.
    Without it other ranks' rows are constants, and with ``local_loss`` this rank's are too.
    """
    if peers is None:
        return image_features, text_features
    call = f"gather_features(local_loss={local_loss}, gather_with_grad={gather_with_grad})"
    shards = _agree(call, image_features, text_features, peers)
    gathered = []
    for own in (image_features, text_features):
        if gather_with_grad:
            gathered.append(AllGather.apply(own, shards))
            continue
        with torch.no_grad():
            rows = shards.all_gather(own)
        if not local_loss:
            rows = torch.cat([rows[: shards.span.start], own, rows[shards.span.stop :]])
        gathered.append(rows)
    return gathered[0], gathered[1]


def gather_texts(
    image_features: Tensor, text_features: Tensor, peers: Peers | None
) -> tuple[Tensor, list[Tensor]]:
    """This rank's text rows and the blocks of the others, which carry gradients back to them."""
    if peers is None:
        return text_features, []
    shards = _agree("siglip_loss(materialised)", image_features, text_features, peers)
    blocks = AllGather.apply(text_features, shards).split(shards.own)
    return text_features, [block for rank, block in enumerate(blocks) if rank != shards.rank]


def _agree(call: str, image: Tensor, text: Tensor, peers: Peers) -> Shards:
    """The handshake of a loss whose labels take as many rows on every rank."""

    def prepare() -> tuple[tuple[Tensor, ...], str]:
        if image.ndim != 2 or text.ndim != 2 or image.shape[0] != text.shape[0]:
            raise ValueError(
                f"image_features and text_features have shapes {tuple(image.shape)} and "
                f"{tuple(text.shape)}; accepted: two matrices of as many rows"
            )
        if image.shape[1] != text.shape[1] or image.dtype != text.dtype:
            raise ValueError(
                f"image_features is {image.dtype} of width {image.shape[1]} and text_features "
                f"{text.dtype} of width {text.shape[1]}; materialised over several ranks, both "
                "must be the same"
            )
        return (image, text), "torch"

    # A loss may gather several pairs, of a student and a teacher say: what one pair agreed upon
    # holds for no other, so that each has its own handshake.
    shards, *_ = replace(peers, handshake=Handshake()).check_and_agree(call, image, prepare)
    if len(set(shards.rows)) > 1:
        raise ValueError(
            f"the ranks hold {list(shards.rows)} rows; materialised logits take as many rows on "
            "every rank"
        )
    return shards
