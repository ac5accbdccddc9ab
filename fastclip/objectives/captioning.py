"""Captioning: predict each word of a caption from the picture and the words before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTION, PICTURE
from fastclip.errors import UserError, check_flags
from fastclip.loss import linear_cross_entropy
from fastclip.models.captioner import Captioner
from fastclip.models.options import build_captioner
from fastclip.objectives.base import MicroBatch, Objective, Output, Part, Parts
from fastclip.objectives.token_targets import count_next_tokens
from fastclip.ops import dispatch


@dataclass(kw_only=True)
class DecoderOptions:
    """Flags of the decoder that objectives with captions share."""

    decoder_width: int | None = None
    """Width of the decoder's states; the model's own where left out."""
    decoder_layers: int | None = None
    """Layers of the decoder; the model's own where left out."""
    decoder_heads: int | None = None
    """Attention heads of the decoder; the model's own where left out."""

    def __post_init__(self) -> None:
        check_flags(self, ("decoder_width", "decoder_heads"), "1 or more", lambda n: n >= 1)
        check_flags(self, ("decoder_layers",), "1 to 1000", lambda n: 1 <= n <= 1000)

    def of_decoder(self) -> dict[str, Any]:
        """Keyword arguments for the model; None stands for the preset's own."""
        return {
            "decoder_width": self.decoder_width,
            "decoder_layers": self.decoder_layers,
            "decoder_heads": self.decoder_heads,
        }


@dataclass(kw_only=True)
class CaptioningOptions(DecoderOptions):
    """Flags of captioning."""

    decoder_dropout: float = 0.1
    """Probability with which the decoder drops a unit."""
    backbone_lr: float | None = None
    """Peak learning rate of the image tower; --lr where left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flags(self, ("decoder_dropout",), "0 <= value < 1", lambda p: 0 <= p < 1)
        check_flags(self, ("backbone_lr",), "more than 0", lambda rate: rate > 0)


class CaptionTokens(nn.Module):
    """The cross entropy of every caption token of a micro-batch, over the global batch's count."""

    def __init__(self, model: Captioner, workspace_bytes: int):
        super().__init__()
        self.model = model
        self.workspace_bytes = workspace_bytes

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        grid = self.model.encode_grid(micro_batch["image"])
        hidden = self.model.hidden(grid, micro_batch["text"][:, :-1])
        loss = caption_sum(self.model.head, hidden, micro_batch, step, self.workspace_bytes)
        return Output(sums={"caption_loss": loss})


def caption_sum(
    head: nn.Module, hidden: Tensor, micro_batch: MicroBatch, step: dict, workspace_bytes: int
) -> Tensor:
    """Sum of ``-log p`` of a micro-batch's targets over the global count; 0 where that is 0.

    Only rows that have a target reach the engine. The loss is taken inside the forward pass of
    ``head``, where the vocabulary's matrix is whole under ZeRO-3 too.
    """
    rows = hidden.flatten(0, 1)[micro_batch["places"]]
    count = step["caption_tokens"]
    take = partial(_tokens_loss, micro_batch["targets"], workspace_bytes)
    return head(rows, take) * (1 / count if count else 0.0)


def _tokens_loss(
    targets: Tensor, workspace_bytes: int, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    return linear_cross_entropy(
        hidden, weight, targets, bias, reduction="sum", workspace_bytes=workspace_bytes
    )


class Captioning(Objective):
    """Forward captioning, as VirTex has it beside its bidirectional form.

    Desai and Johnson, 2021: a transformer decoder over the image tower's grid. The loss is the mean
    over the tokens of the global batch.
    """

    Options: ClassVar[type] = CaptioningOptions
    summary = "predict a caption's words from the picture's grid and the words before"
    paper = "Desai and Johnson 2021 (VirTex, forward captioning), arXiv 2006.06666"
    fields = (PICTURE, CAPTION)

    in_order = True
    writes_captions = True

    model: Captioner

    def __init__(self, options: CaptioningOptions, parts: Parts):
        self.options = options
        self.eot_id = needs_end(parts, "captioning")
        self.model = build_captioner(
            parts.model, parts.tokenizer, dropout=options.decoder_dropout, **options.of_decoder()
        )
        self.network = CaptionTokens(self.model, parts.workspace_bytes)
        learns = any(p.requires_grad for p in self.model.visual.parameters())
        if options.backbone_lr is not None and not learns:
            raise UserError("--backbone-lr does nothing with --lock-image, which freezes the tower")

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        return {"caption_tokens": count_next_tokens(batch, self.eot_id, ranks)}

    def groups(self) -> Iterable[Part]:
        named = dict(self.network.named_parameters())
        tower = {n: p for n, p in named.items() if n.startswith("model.visual.")}
        rest = {n: p for n, p in named.items() if n not in tower}
        return [Part("tower", tower, lr=self.options.backbone_lr), Part("decoder", rest)]

    @classmethod
    def check_backend(cls, device: torch.device) -> None:
        dispatch.resolved("linear_cross_entropy", "auto", device)


def needs_end(parts: Parts, objective: str) -> int:
    """The id that ends a text; refuses a tokenizer that keeps no order."""
    if parts.tokenizer.eot_id is None:
        raise UserError(
            f"--objective {objective} predicts words in their order, which --tokenizer words does "
            "not keep; expected bpe or a merges file"
        )
    return parts.tokenizer.eot_id
