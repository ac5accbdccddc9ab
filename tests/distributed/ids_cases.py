"""What the ranks of a pool run with ids and extra texts, and what it should be on one process."""

from typing import Any

import torch
from gloo_cases import WIDTH, features, gradients, own_rows
from textbook import rank_of_row

import fastclip.loss
from fastclip.ops import reference_ids

KINDS = ("few", "one", "distinct", "none")


def ids_of(kind: str, total: int) -> torch.Tensor | None:
    """Of all rows: each several times, all the same, each once, or none."""
    generator = torch.Generator().manual_seed(3)
    if kind == "few":
        return torch.randint(-2, 2, (total,), generator=generator) * 2**62
    if kind == "one":
        return torch.full((total,), -7)
    return None if kind == "none" else torch.randperm(total, generator=generator)


def extra_of(extra: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The extra texts of all ranks."""
    return features(sum(extra), dtype, WIDTH, seed=5)[0]


def leaves_of(
    rank: int, rows: tuple[int, ...], extra: tuple[int, ...] | None, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    image, text = own_rows(features(sum(rows), dtype), rows, rank)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    scale, bias = (torch.tensor(v, dtype=parameter, requires_grad=True) for v in (10.0, -3.0))
    leaves = {"image": image, "text": text, "scale": scale, "bias": bias}
    if extra is not None:
        leaves["extra"] = own_rows([extra_of(extra, dtype)], extra, rank)[0]
    return leaves


def ids_step(
    rank: int,
    world: int,
    name: str,
    rows: tuple[int, ...],
    kind: str,
    same: str,
    extra: tuple[int, ...] | None,
    how: dict[str, Any],
    upstream: tuple[float, ...],
    dtype: torch.dtype = torch.float64,
    frozen: tuple[str, ...] = (),
) -> dict:
    """Loss and gradients of a loss by ``name`` on this rank, built with ``how``."""
    leaves = leaves_of(rank, rows, extra, dtype)
    for leaf in frozen:
        leaves[leaf].requires_grad_(False)
    ids = ids_of(kind, sum(rows))
    own = None if ids is None else ids.split(rows)[rank]
    loss = getattr(fastclip.loss, name)(rank=rank, world_size=world, **how)
    value = loss(
        *(leaves[leaf] for leaf in ("image", "text", "scale", "bias")),
        ids=own,
        same=same,
        extra_texts=leaves.get("extra"),
    )
    return gradients(value, upstream[rank], leaves)


def plain_and_distinct(rank: int, world: int, name: str, rows: tuple, how: dict) -> tuple:
    """Steps without ids, and with ids that all differ and no extra texts."""
    steps = []
    for kind, extra in (("none", None), ("distinct", None), ("distinct", (0,) * world)):
        steps.append(
            ids_step(
                rank, world, name, rows, kind, "positive", extra, how, (1.0,) * world, torch.float32
            )
        )
    return tuple(steps)


def disagreeing(rank: int, world: int, fault: str) -> None:
    """A step in which rank 1 differs from the others by ``fault``."""
    image, text = features(4, torch.float32)
    given: dict[str, Any] = {"ids": torch.arange(4), "extra_texts": image[:2]}
    options: dict[str, Any] = {"shards": "equal"} if fault == "equal shards" else {}
    if rank == 1:
        given |= {
            "ids": {"ids": None},
            "same": {"same": "ignore"},
            "extra_texts": {"extra_texts": None},
            "dtype": {"ids": torch.arange(4).int()},
            "width": {"extra_texts": image[:2, 1:]},
            "equal shards": {"extra_texts": image[:3]},
        }[fault]
    fastclip.loss.ClipLoss(rank=rank, world_size=world, **options)(image, text, 10.0, **given)


def truth(
    name: str,
    rows: tuple[int, ...],
    kind: str,
    same: str,
    extra: tuple[int, ...] | None,
    how: dict[str, Any],
    upstream: tuple[float, ...],
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Every rank's loss, and the gradients of all ranks' features together, by fp64 autograd."""
    whole = (sum(rows),)
    leaves = leaves_of(0, whole, None if extra is None else (sum(extra),), torch.float64)
    ids, weight = ids_of(kind, sum(rows)), torch.tensor(upstream, dtype=torch.float64)
    owner, world, total = rank_of_row(rows), len(rows), sum(rows)
    image, text, scale, bias = (leaves[leaf] for leaf in ("image", "text", "scale", "bias"))
    given = ids, same, leaves.get("extra")
    if name == "SigLipLoss":
        each = reference_ids.siglip_losses(image, text, scale, bias, *given)
        losses = [world / total * each[owner == rank].sum() for rank in range(world)]
    else:
        one_sided = world > 1 and how == {"local_loss": True, "gather_with_grad": False}
        others = (text.detach(), image.detach()) if one_sided else (text, image)
        by_image, _ = reference_ids.clip_losses(image, others[0], scale, *given)
        _, by_text = reference_ids.clip_losses(others[1], text, scale, *given)
        each = (by_image + by_text) / (2 * total) + 0 * bias
        losses = [each[owner == rank].sum() for rank in range(world)]
        losses = [world * loss for loss in losses] if how["local_loss"] else [sum(losses)] * world
    total_loss = sum(w * loss for w, loss in zip(weight, losses, strict=True))
    found = dict(zip(leaves, torch.autograd.grad(total_loss, leaves.values()), strict=True))
    if name != "SigLipLoss" and not any(how.values()):
        # open_clip's gradients of this rank's loss alone; extra texts have those of all.
        for leaf in ("image", "text"):
            found[leaf] = found[leaf] * (weight[owner] / weight.sum())[:, None]
    return [loss.detach() for loss in losses], found
