"""Inputs and bars of the contrastive losses with ids and extra texts."""

from collections.abc import Callable
from typing import Any

import torch
from bars import Bars
from engine_checks import features, outcome
from torch import Tensor

from fastclip.ops import reference_ids
from fastclip.ops.infonce import clip_loss_ids_single
from fastclip.ops.sigmoid import siglip_loss_ids_single

KINDS_OF_IDS = ("five", "two", "one", "distinct", "none")


def _clip(x, y, scale, bias, ids, same, extra):
    return reference_ids.clip_loss(x, y, scale, ids, same, extra)


# The twin of each loss, of image, text, scale, bias, ids, same and extra texts.
LOSSES: dict[str, Callable[..., Tensor]] = {"clip": _clip, "siglip": reference_ids.siglip_loss}


def ids_of(kind: str, n: int) -> Tensor | None:
    """Ids of n rows: each five times, two among all, one, each once, or None."""
    generator = torch.Generator().manual_seed(7)
    places = torch.randperm(n, generator=generator)
    if kind == "five":
        return places // 5 - 2**63
    if kind == "two":
        return (places % 2) * (2**63 - 1)
    if kind == "one":
        return torch.full((n,), -1)
    return places if kind == "distinct" else None


def given_of(kind: str, n: int, same: str) -> tuple[Tensor | None, str]:
    return ids_of(kind, n), same


def leaves_of(
    kind: str, n: int, k: int, width: int, scale: float, dtype: torch.dtype
) -> list[Tensor]:
    """Image, text, scale, bias and extra texts, which lie near the first images."""
    x, y = features(kind, n + k, width)
    at_least = torch.float64 if dtype == torch.float64 else torch.float32
    scalars = [torch.tensor(v, dtype=at_least) for v in (scale, -scale / 2)]
    return [t.clone() for t in (x[:n].to(dtype), y[:n].to(dtype), *scalars, y[n:].to(dtype))]


def ours(
    loss: str,
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    ids: Tensor | None,
    same: str,
    extra: Tensor | None,
    *,
    workspace_bytes: int = 2**28,
    backend: str = "torch",
) -> Tensor:
    given: dict[str, Any] = {"ids": ids, "same": same, "extra_texts": extra}
    given |= {"workspace_bytes": workspace_bytes, "backend": backend}
    if loss == "clip":
        return clip_loss_ids_single(x, y, scale, **given)
    return siglip_loss_ids_single(x, y, scale, bias, chunk_size=0, **given)


class _Masked(Bars):
    """Some logits count for nothing in softmaxes."""

    def leave_out(self, places: Tensor) -> "Bars":
        self.z = self.z.masked_fill(places, -1e30)
        return self


def bars_of(
    loss: str,
    leaves: list[Tensor],
    ids: Tensor | None,
    same: str,
    dtype: torch.dtype,
    gpu: bool,
    alike: bool,
) -> Bars:
    """Of the loss by its features, whose columns are texts and extra texts."""
    x, y, scale, bias, extra = leaves
    n, k, columns = len(x), len(extra), torch.cat([y, extra])
    positive, left_out = reference_ids.same_ids(x @ y.T, ids, same)
    positive, left_out = (
        torch.cat([places, places.new_zeros(n, k)], 1) for places in (positive, left_out)
    )
    if loss == "siglip":
        bars = Bars(x, columns, scale, bias, dtype=dtype, gpu=gpu, alike=alike)
        return bars.sigmoid(positive / n, (~positive & ~left_out) / n)
    bars = _Masked(x, columns, scale, dtype=dtype, gpu=gpu, alike=alike).leave_out(left_out)
    weight = x.new_full((n,), 0.5 / n)
    target = positive / positive.sum(1, keepdim=True) * (0.5 / n)
    return bars.softmax(1, weight, target).softmax(
        0, torch.cat([weight, weight.new_zeros(k)]), target
    )


def check(
    loss: str,
    features_of: str,
    n: int,
    k: int,
    width: int,
    scale: float,
    kind: str,
    same: str,
    dtype: torch.dtype,
    *,
    gpu: bool = False,
    device: str = "cpu",
    **options: Any,
) -> None:
    """Ours is as near to the fp64 twin as ``dtype`` allows."""
    leaves = leaves_of(features_of, n, k, width, scale, torch.float64)
    leaves, ids = [leaf.to(device) for leaf in leaves], ids_of(kind, n)
    ids = None if ids is None else ids.to(device)
    needed = [leaf for m, leaf in enumerate(leaves) if m != 3 or loss == "siglip"]

    def run(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        def of_needed(*t: Tensor) -> Tensor:
            x, y, s, *bias, extra = t
            return function(x, y, s, bias[0] if bias else None, ids, same, extra)

        value, d_x, d_y, d_scale, *d_bias, d_extra = outcome(of_needed, needed, dtype)
        return [value, d_x, torch.cat([d_y, d_extra]), d_scale, *d_bias]

    got = run(lambda *t: ours(loss, *t, **options), dtype)
    want = run(LOSSES[loss], torch.float64)
    if n == 0:
        assert all((g == 0).all() for g in got)
        return
    # Where all pairs are positives, entries of G are nearly equal, and so are their errors.
    alike = features_of == "identical" or (loss, kind, same) == ("siglip", "one", "positive")
    bars = bars_of(loss, leaves, ids, same, dtype, gpu, alike)
    bars.check(got, want, ("x", "y", "scale", "bias")[: len(got) - 1])
