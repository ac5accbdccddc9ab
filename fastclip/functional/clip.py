"""CLIP's contrastive loss, alone or over the ranks of a process group.

Each rank works on one block of logits, its image rows against the text rows of all ranks: half the
products of open_clip's two blocks, and text alone travels. A training step has each rank of n rows
send, per other rank:

- ``n D`` text features, and ``n D`` text gradients where any rank wants them; open_clip sends
  ``2 n D`` of features, and ``2 n D`` of gradients with ``gather_with_grad``;
- ``2 n`` column statistics, the partial ones to each column's owner and the combined ones back;
- with ``local_loss`` one scalar, the upstream; without it the rank's part of the loss, its part of
  the scale gradient and, with ``gather_with_grad``, the upstream;
- three integers of the handshake.

With ids it sends ``n`` of them, and ``n`` partial sums of positives' logits beside the partial
column statistics; with extra texts those and their gradients, as texts, and how many they are.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm import Peers, peers_of_function
from fastclip.functional.clip_block import sharded_infonce
from fastclip.functional.settings import ComputeOptions, GivenIds
from fastclip.functional.sharded import (
    Flags,
    check_workspace,
    warn_of_one_sided,
)
from fastclip.ops.dispatch import (
    DEFAULT_WORKSPACE_BYTES,
    resolve_backend,
    resolve_for_graph,
    resolve_for_ids,
)
from fastclip.ops.infonce import (
    clip_loss_ids_single,
    clip_loss_single,
    shifted,
)
from fastclip.ops.inputs import FLOAT_DTYPES, SAME, check_ids, paired, paired_with_extra, scalar


def clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None = None,
    *,
    local_loss: bool = False,
    gather_with_grad: bool = False,
    group: dist.ProcessGroup | None = None,
    shards: str = "any",
    reduce_dtype: str = "float32",
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
    ids: Tensor | None = None,
    same: str = "positive",
    extra_texts: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy of images choosing among texts and of texts choosing among images.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021.

    Args:
        image_features: ``[n, D]`` in float32, bfloat16, float16 or float64.
        text_features: ``[n, D]``, outside autocast of the same dtype. Row i is the pair of image
            row i; every other row of the batch is a negative.
        logit_scale: factor of the logits, already exponentiated: a float or one element.
        logit_bias: a float or one element. It shifts all logits, so that its gradient is zero.
        local_loss, gather_with_grad: open_clip's flags, with open_clip's values and gradients in
            all four combinations. Without effect where this process is alone.
        group: the ranks whose rows make up the batch, in the group's order; None for this process
            alone.
        shards: ``"any"`` lets ranks hold different numbers of rows and has a handshake on every
            call; ``"equal"`` has one the first time.
        reduce_dtype: text gradients are summed over ranks in ``"float32"`` (float64 for float64
            features) or in the dtype of the ``"input"``.
        workspace_bytes: bound on memory beyond inputs, outputs, the gathered text features and the
            accumulators of both gradients. With ``extra_texts`` a copy of text features and them
            comes on top.
        backend: see ``fastclip.ops.dispatch``. ``"cuda"`` takes no ids and no extra texts.
        ids: ``[n]`` int64, any values; rows of one id anywhere in the batch belong together. None
            where every pair is of its own.
        same: what becomes of rows and columns of one id. ``"positive"``: all are positives, with
            targets of one over their number in both directions (as Khosla et al., "Supervised
            Contrastive Learning", NeurIPS 2020, average outside the logarithm). ``"ignore"``: those
            that are not row i and column i are left out of both softmaxes.
        extra_texts: ``[k, D]`` like ``text_features``: hard negatives, further columns of the
            images' softmaxes only. Ranks may give different numbers of them; every image meets
            those of all ranks. Their gradient is of the losses of all ranks, whatever the flags.

    Returns:
        0-d, float32 (float64 for float64 features). With ``local_loss``, ``W / 2N`` times the sum
        over this rank's rows, so that the mean over ranks is the mean over the batch; without, that
        mean. With ``local_loss`` and ``gather_with_grad`` a rank's gradient of the scale is that of
        its images against all texts: like open_clip's only after averaging over ranks, as DDP does.

    Raises:
        TypeError, ValueError: inputs that do not fit. In a group, ValueError on every rank.
    """
    peers = peers_of_function(group, shards)
    if ids is not None or extra_texts is not None or same not in SAME:
        options = ComputeOptions(workspace_bytes, backend, reduce_dtype)
        return clip_loss_with_ids(
            image_features,
            text_features,
            logit_scale,
            logit_bias,
            GivenIds(ids, same, extra_texts),
            Flags(local_loss, gather_with_grad),
            peers,
            options,
        )
    if peers is None:
        return clip_loss_single(
            image_features,
            text_features,
            logit_scale,
            logit_bias,
            workspace_bytes=workspace_bytes,
            backend=backend,
        )
    return clip_loss_over_ranks(
        image_features,
        text_features,
        logit_scale,
        logit_bias,
        Flags(local_loss, gather_with_grad),
        peers,
        ComputeOptions(workspace_bytes, backend, reduce_dtype),
    )


def clip_loss_with_ids(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None,
    given: GivenIds,
    flags: Flags,
    peers: Peers | None,
    options: ComputeOptions,
) -> Tensor:
    """``clip_loss`` among ``peers``, or alone, with ``ids`` or ``extra_texts``."""
    if peers is not None:
        return clip_loss_over_ranks(
            image, text, logit_scale, logit_bias, flags, peers, options, given
        )
    return clip_loss_ids_single(
        image,
        text,
        logit_scale,
        logit_bias,
        ids=given.ids,
        same=given.same,
        extra_texts=given.extra_texts,
        workspace_bytes=options.workspace_bytes,
        backend=options.backend,
    )


def clip_loss_over_ranks(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None,
    flags: Flags,
    peers: Peers,
    options: ComputeOptions,
    given: GivenIds | None = None,
) -> Tensor:
    """``clip_loss`` among ``peers``."""
    local_loss, gather_with_grad = flags
    if local_loss and not gather_with_grad:
        warn_of_one_sided()
    words, equal = options.words, False
    if given is None:
        prepare = partial(
            _prepare,
            image,
            text,
            logit_scale,
            logit_bias,
            options.workspace_bytes,
            options.backend,
            dist.get_world_size(peers.group),
        )
    else:
        equal = peers.handshake.shards == "equal"
        words += given.words(equal)
        prepare = partial(_prepare_ids, image, text, logit_scale, logit_bias, given, options)
    shards, (x, y, scale, *others), backend = peers.check_and_agree(
        f"clip_loss(local_loss={local_loss}, gather_with_grad={gather_with_grad}, {words})",
        image,
        prepare,
    )
    extra = extra_shards = None
    if given is not None and given.extra_texts is not None:
        extra = others[0]
        found = shards.of_another(extra, equal)
        extra_shards = found if found.total else None
    if min(shards.rows) < max(shards.rows):
        new_kept = resolve_backend("infonce", backend, x.device, x.dtype).module.new_kept
        columns = shards.total + (0 if extra_shards is None else extra_shards.total)
        check_workspace(
            lambda x, y: new_kept(x, y, True, options.workspace_bytes), shards, (x,), (y,), columns
        )
    ids, ignore = (None, False) if given is None else (given.ids, given.same == "ignore")
    return sharded_infonce(
        x, y, scale, extra, ids, ignore, shards, extra_shards, flags, options, backend
    )[0]


def _prepare(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None,
    workspace_bytes: int,
    backend: str,
    ranks: int,
) -> tuple[tuple[Tensor, ...], str]:
    """This rank's inputs, fit for the operation, and its backend's name. Ranks may take different
    backends: what they exchange is the same, and ``auto`` takes none that refuses a workspace which
    serves another."""
    # One look, as in clip_loss_single.
    if not (
        isinstance(image, Tensor)
        and isinstance(text, Tensor)
        and isinstance(scale, Tensor)
        and (2, image.shape, image.dtype, image.device)
        == (text.ndim, text.shape, text.dtype, text.device)
        and image.dtype in FLOAT_DTYPES
        and image.device.type != "meta"
        and not torch.is_autocast_enabled(image.device.type)
        and scale.numel() == 1
        and bias is None
    ):
        image, text = paired(image, text)
        scale = shifted(scalar(scale, image), bias, image)
    accumulated = torch.float64 if image.dtype == torch.float64 else torch.float32
    scale = scale.reshape(()).to(device=image.device, dtype=accumulated)
    backend = resolve_for_graph("infonce", backend, image, text, workspace_bytes, ranks)
    if backend != "torch":
        # Strides may differ between ranks: one that is refused must not leave the others waiting.
        run = resolve_backend("infonce", backend, image.device, image.dtype)
        run.module.check_features(image, text)
    return (image, text, scale), backend


def _prepare_ids(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None,
    given: GivenIds,
    options: ComputeOptions,
) -> tuple[tuple[Tensor, ...], str]:
    """``_prepare`` with ids or extra texts; these come last, where there are any."""
    image, text, extra = paired_with_extra(image, text, given.extra_texts)
    check_ids(given.ids, given.same, image)
    backend = resolve_for_ids("infonce", options.backend, image, options.workspace_bytes)
    if backend != "torch":
        run = resolve_backend("infonce", backend, image.device, image.dtype)
        run.module.check_features(image, text)
    tensors = image, text, shifted(scalar(scale, image), bias, image)
    return tensors if extra is None else (*tensors, extra), backend
