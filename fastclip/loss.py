"""Drop-in contrastive and captioning losses: open_clip's names, values and gradients.

    from fastclip.loss import ClipLoss

    loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world_size)
    loss(image_features, text_features, logit_scale).backward()

Constructor and ``forward`` arguments are open_clip's; the keywords after them are those of
``clip_loss`` and ``siglip_loss``. Logits are never held whole, unless a subclass overrides a method
that makes them: then the loss goes through that method, with a warning.

All losses take first derivatives in reverse mode, by autograd and by the transforms of
``torch.func``, where ``vmap`` works on one example after another; others are refused.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fastclip.comm import Handshake, peers_of_module
from fastclip.functional.caption import CaptionCrossEntropy
from fastclip.functional.clip import Flags, clip_loss, clip_loss_over_ranks, clip_loss_with_ids
from fastclip.functional.distill import distilled
from fastclip.functional.gather import gather_pair, gather_texts
from fastclip.functional.module import ContrastiveLoss, Overridable, refuse_horovod
from fastclip.functional.settings import ComputeOptions, GivenIds
from fastclip.functional.siglip import check_dist_impl, siglip_loss, sigmoid_contrastive
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES
from fastclip.ops.infonce import clip_loss_single
from fastclip.ops.inputs import SAME
from fastclip.ops.linear.cross_entropy import linear_cross_entropy
from fastclip.ops.linear.multi_target import multi_target_cross_entropy
from fastclip.ops.linear.ngram import jelinek_mercer, ngram_cross_entropy
from fastclip.ops.linear.sigmoid import linear_sigmoid_cross_entropy

__all__ = [
    "ClipLoss",
    "CoCaLoss",
    "DistillClipLoss",
    "GenLipLoss",
    "SigLipLoss",
    "clip_loss",
    "gather_features",
    "jelinek_mercer",
    "linear_cross_entropy",
    "linear_sigmoid_cross_entropy",
    "multi_target_cross_entropy",
    "ngram_cross_entropy",
    "siglip_loss",
]


def gather_features(
    image_features: Tensor,
    text_features: Tensor,
    local_loss: bool = False,
    gather_with_grad: bool = False,
    rank: int = 0,
    world_size: int = 1,
    use_horovod: bool = False,
    *,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Image and text rows of all ranks, ``[N, D]`` each, with open_clip's gradients.

    With ``gather_with_grad`` every row carries the gradients of all ranks back to its owner;
    without it other ranks' rows are constants, and with ``local_loss`` this rank's are too.
    """
    refuse_horovod(use_horovod)
    peers = peers_of_module(group, rank, world_size, Handshake())
    return gather_pair(image_features, text_features, local_loss, gather_with_grad, peers)


class ClipLoss(ContrastiveLoss):
    """CLIP's contrastive loss as a module; see ``clip_loss`` for arguments and values.

    ``rank`` and ``world_size`` are those of the process group (``group``, by default the whole
    world). ``world_size=1`` is this process alone, whatever groups exist. ``cache_labels`` concerns
    ``get_ground_truth``; ``use_horovod`` is refused. ``forward`` takes ``ids``, ``same`` and
    ``extra_texts`` by keyword, as ``clip_loss`` does.
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        *,
        group: dist.ProcessGroup | None = None,
        shards: str = "any",
        reduce_dtype: str = "float32",
        workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
        backend: str = "auto",
    ) -> None:
        refuse_horovod(use_horovod)
        options = ComputeOptions(workspace_bytes, backend, reduce_dtype)
        super().__init__(cache_labels, rank, world_size, group, shards, options)
        self.local_loss = local_loss
        self.gather_with_grad = gather_with_grad
        self.use_horovod = use_horovod

    def get_ground_truth(self, device: torch.device, num_logits: int) -> Tensor:
        """Column of each row's pair in the logits of ``get_logits``, ``[num_logits]``."""
        if self.prev_num_logits == num_logits and device in self.labels:
            return self.labels[device]
        first = num_logits * self.rank if self.world_size > 1 and self.local_loss else 0
        labels = torch.arange(first, first + num_logits, device=device)
        if self.cache_labels:
            self.labels[device] = labels
            self.prev_num_logits = num_logits
        return labels

    def gather_features(
        self, image_features: Tensor, text_features: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All ranks' features; see the function ``gather_features``."""
        return gather_pair(
            image_features, text_features, self.local_loss, self.gather_with_grad, self._peers()
        )

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits per image and per text, materialised: of this rank's rows with ``local_loss``, of
        all rows without."""
        images, texts = image_features, text_features
        if self.world_size > 1:
            images, texts = self.gather_features(image_features, text_features)
        if self.world_size > 1 and not self.local_loss:
            per_image = logit_scale * images @ texts.T
            per_text = per_image.T
        else:
            per_image = logit_scale * image_features @ texts.T
            per_text = logit_scale * text_features @ images.T
        if logit_bias is not None:
            # In place, as open_clip does: where one is a view of the other, it is added twice.
            per_image += logit_bias
            per_text += logit_bias
        return per_image, per_text

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
        output_dict: bool = False,
        *,
        ids: Tensor | None = None,
        same: str = "positive",
        extra_texts: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        plain = ids is None and extra_texts is None and same in SAME
        # Written out: tests count the calls of ours that lead to the maths. Whether a method is
        # overridden, in the class or on the instance, is looked at here and told by _overridden.
        mine = type(self)
        methods = mine.get_ground_truth, mine.gather_features, mine.get_logits
        if (methods != _METHODS or not _METHOD_NAMES.isdisjoint(self.__dict__)) and (
            self._overridden()
        ):
            if not plain:
                raise self._no_ids(same)
            loss = self._cross_entropy(
                *self.get_logits(image_features, text_features, logit_scale, logit_bias=logit_bias)
            )
            return {"contrastive_loss": loss} if output_dict else loss

        options, peers = self.options, None
        if self.world_size > 1 or self.group is not None:
            key = self.group or dist.group.WORLD, self.rank, self.world_size
            known = self.handshake.peers
            peers = known[1] if known is not None and known[0] == key else self._peers()
        if not plain:
            loss = clip_loss_with_ids(
                image_features,
                text_features,
                logit_scale,
                logit_bias,
                GivenIds(ids, same, extra_texts),
                Flags(self.local_loss, self.gather_with_grad),
                peers,
                options,
            )
        elif peers is None:
            loss = clip_loss_single(
                image_features,
                text_features,
                logit_scale,
                logit_bias,
                workspace_bytes=options.workspace_bytes,
                backend=options.backend,
            )
        else:
            flags = Flags(self.local_loss, self.gather_with_grad)
            loss = clip_loss_over_ranks(
                image_features, text_features, logit_scale, logit_bias, flags, peers, options
            )
        return {"contrastive_loss": loss} if output_dict else loss

    def _cross_entropy(self, per_image: Tensor, per_text: Tensor) -> Tensor:
        labels = self.get_ground_truth(per_image.device, per_image.shape[0])
        return (F.cross_entropy(per_image, labels) + F.cross_entropy(per_text, labels)) / 2

    _materialising: ClassVar[Overridable] = (get_ground_truth, gather_features, get_logits)


_METHODS = ClipLoss._materialising
_METHOD_NAMES = frozenset(("get_ground_truth", "gather_features", "get_logits"))


class CoCaLoss(ClipLoss):
    """CLIP's loss and a captioner's cross entropy, each times its weight.

    Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", TMLR 2022.
    ``forward`` takes caption logits ``[B, L, V]`` and labels ``[B, L]``, of which ``pad_id`` counts
    for nothing; ``linear_cross_entropy`` is the way that never holds such logits. By keyword it
    takes ``ids``, ``same`` and ``extra_texts``, which concern CLIP's loss.
    """

    def __init__(
        self,
        caption_loss_weight: float,
        clip_loss_weight: float,
        pad_id: int = 0,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        **ours: Any,
    ) -> None:
        super().__init__(
            local_loss, gather_with_grad, cache_labels, rank, world_size, use_horovod, **ours
        )
        self.clip_loss_weight = clip_loss_weight
        self.caption_loss_weight = caption_loss_weight
        self.caption_loss = CaptionCrossEntropy(pad_id, self.options.workspace_bytes)

    def forward(  # type: ignore[override]
        self,
        image_features: Tensor,
        text_features: Tensor,
        logits: Tensor,
        labels: Tensor,
        logit_scale: Tensor | float,
        output_dict: bool = False,
        *,
        ids: Tensor | None = None,
        same: str = "positive",
        extra_texts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        contrastive_loss = torch.tensor(0, device=logits.device)
        if self.clip_loss_weight:
            loss = ClipLoss.forward(
                self,
                image_features,
                text_features,
                logit_scale,
                ids=ids,
                same=same,
                extra_texts=extra_texts,
            )
            assert isinstance(loss, Tensor)
            contrastive_loss = self.clip_loss_weight * loss
        caption_loss = self.caption_loss_weight * self.caption_loss(logits.permute(0, 2, 1), labels)
        if output_dict:
            return {"contrastive_loss": contrastive_loss, "caption_loss": caption_loss}
        return contrastive_loss, caption_loss


class DistillClipLoss(ClipLoss):
    """CLIP's loss, and the cross entropies of a student's softmaxes under a teacher's.

    The teacher's features may have another width; its features and scale are constants, and one
    that requires a gradient is refused. ``ids`` and ``extra_texts`` are refused.
    """

    def dist_loss(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """Mean over rows of the cross entropy of materialised logits ``[n, m]``."""
        teacher, student = teacher_logits.softmax(dim=1), student_logits.log_softmax(dim=1)
        return -(teacher * student).sum(dim=1).mean(dim=0)

    def forward(  # type: ignore[override]
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        dist_image_features: Tensor,
        dist_text_features: Tensor,
        dist_logit_scale: Tensor | float,
        output_dict: bool = False,
        *,
        ids: None = None,
        same: str = "positive",
        extra_texts: None = None,
    ) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        if ids is not None or extra_texts is not None or same != "positive":
            raise ValueError(
                "DistillClipLoss takes no ids, no same and no extra_texts; accepted: those of "
                "ClipLoss, CoCaLoss and SigLipLoss"
            )
        student = (image_features, text_features, logit_scale)
        teacher = (dist_image_features, dist_text_features, dist_logit_scale)
        if self._overridden():
            per_image, per_text = self.get_logits(*student)
            teacher_per_image, teacher_per_text = self.get_logits(*teacher)
            contrastive_loss = self._cross_entropy(per_image, per_text)
            distill_loss = (
                self.dist_loss(teacher_per_image, per_image)
                + self.dist_loss(teacher_per_text, per_text)
            ) / 2
        else:
            flags = Flags(self.local_loss, self.gather_with_grad)
            contrastive_loss, distill_loss = distilled(
                student, teacher, flags, self._peers(), self.options
            )
        if output_dict:
            return {"contrastive_loss": contrastive_loss, "distill_loss": distill_loss}
        return contrastive_loss, distill_loss

    _materialising = (*ClipLoss._materialising, dist_loss)


class SigLipLoss(ContrastiveLoss):
    """SigLIP's sigmoid loss as a module; see ``siglip_loss`` for arguments and values.

    ``forward`` takes ``ids``, ``same`` and ``extra_texts`` by keyword, as ``siglip_loss`` does.
    ``rank``, ``world_size`` and ``group`` as in ``ClipLoss``.
    """

    def __init__(
        self,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        dist_impl: str | None = None,
        chunk_size: int = 0,
        *,
        group: dist.ProcessGroup | None = None,
        shards: str = "any",
        reduce_dtype: str = "float32",
        workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
        backend: str = "auto",
    ) -> None:
        options = ComputeOptions(workspace_bytes, backend, reduce_dtype)
        super().__init__(cache_labels, rank, world_size, group, shards, options)
        self.dist_impl, self.chunk_size = check_dist_impl(dist_impl or "bidir", chunk_size)

    def get_ground_truth(
        self,
        device: torch.device,
        dtype: torch.dtype,
        num_logits: int,
        negative_only: bool = False,
    ) -> Tensor:
        """``[num_logits, num_logits]`` of -1, with 1 on the diagonal unless ``negative_only``."""
        labels = -torch.ones((num_logits, num_logits), device=device, dtype=dtype)
        return labels if negative_only else labels.fill_diagonal_(1)

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
    ) -> Tensor:
        """Logits of the images against one block of texts, materialised."""
        logits = logit_scale * image_features @ text_features.T
        return logits if logit_bias is None else logits + logit_bias

    def _loss(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
        negative_only: bool = False,
    ) -> Tensor:
        """Loss of the images against one block of as many texts, by materialised logits."""
        rows = image_features.shape[0]
        logits = self.get_logits(image_features, text_features, logit_scale, logit_bias)
        labels = self.get_ground_truth(
            image_features.device, image_features.dtype, rows, negative_only=negative_only
        )
        return -F.logsigmoid(labels * logits).sum() / rows

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None,
        output_dict: bool = False,
        *,
        ids: Tensor | None = None,
        same: str = "positive",
        extra_texts: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        if self._overridden():
            if ids is not None or extra_texts is not None or same not in SAME:
                raise self._no_ids(same)
            own, others = gather_texts(image_features, text_features, self._peers())
            loss = self._loss(image_features, own, logit_scale, logit_bias)
            for texts in others:
                loss = loss + self._loss(
                    image_features, texts, logit_scale, logit_bias, negative_only=True
                )
        else:
            loss = sigmoid_contrastive(
                image_features,
                text_features,
                logit_scale,
                logit_bias,
                self.dist_impl,
                self.chunk_size,
                self._peers(),
                self.options,
                GivenIds(ids, same, extra_texts),
            )
        return {"contrastive_loss": loss} if output_dict else loss

    _materialising = (get_ground_truth, get_logits, _loss)


class GenLipLoss(nn.Module):
    """Next-token cross entropy of logits ``[..., V]`` under labels ``[...]``.

    Labels equal to ``ignore_index`` count for nothing; ``linear_cross_entropy`` is the way that
    never holds such logits.
    """

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.caption_loss = CaptionCrossEntropy(ignore_index)

    def forward(
        self, logits: Tensor, labels: Tensor, output_dict: bool = False
    ) -> Tensor | dict[str, Tensor]:
        loss = self.caption_loss(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
        return {"caption_loss": loss} if output_dict else loss
