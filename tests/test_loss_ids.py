"""The modules and functions of ``fastclip.loss`` with ids and extra texts."""

import pytest
import torch

from fastclip import loss as losses
from fastclip.ops import reference_ids

N, K, WIDTH = 15, 4, 8
IDS = torch.arange(N) // 5 - 2


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, y, extra = (
        torch.nn.functional.normalize(
            torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64), dim=1
        ).to(dtype)
        for rows in (N, N, K)
    )
    return [t.requires_grad_() for t in (x, y, extra)]


def clip_of(x, y, **given):
    return losses.ClipLoss()(x, y, 10.0, **given)


def coca_of(x, y, **given):
    logits, labels = torch.zeros(N, 3, 5), torch.ones(N, 3, dtype=torch.long)
    return losses.CoCaLoss(1.0, 1.0)(x, y, logits, labels, 10.0, **given)[0]


def clip_function(x, y, **given):
    return losses.clip_loss(x, y, 10.0, **given)


def siglip_of(x, y, **given):
    return losses.SigLipLoss()(x, y, 10.0, -3.0, **given)


def siglip_function(x, y, **given):
    return losses.siglip_loss(x, y, 10.0, -3.0, **given)


CLIP, SIGLIP = [clip_of, coca_of, clip_function], [siglip_of, siglip_function]


@pytest.mark.parametrize("same", ["positive", "ignore"])
@pytest.mark.parametrize("loss", CLIP + SIGLIP)
def test_every_door_has_the_twins_loss(loss, same):
    x, y, extra = inputs()
    got = loss(x, y, ids=IDS, same=same, extra_texts=extra)
    if loss in CLIP:
        want = reference_ids.clip_loss(x, y, 10.0, IDS, same, extra)
    else:
        want = reference_ids.siglip_loss(x, y, 10.0, -3.0, IDS, same, extra)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, (x, y, extra)), torch.autograd.grad(want, (x, y, extra))
    )


@pytest.mark.parametrize("loss", CLIP + SIGLIP)
def test_same_alone_changes_nothing(loss):
    x, y, _ = inputs(torch.float32)
    assert torch.equal(loss(x, y, same="ignore"), loss(x, y))


@pytest.mark.parametrize("loss", CLIP + SIGLIP)
@pytest.mark.parametrize("given, kind, words", [
    (dict(same="drop"), ValueError, "same='drop'; accepted: positive, ignore"),
    (dict(ids=[1, 2]), TypeError, "ids is a list; accepted: a torch tensor of int64"),
    (dict(ids=IDS.int()), TypeError, "ids is torch.int32; accepted: int64"),
    (dict(ids=IDS[1:]), ValueError, r"ids has shape \(14,\); accepted: \[15\], an id for each row"),
    (dict(ids=IDS[:, None]), ValueError, r"ids has shape \(15, 1\); accepted: \[15\]"),
    (dict(ids=IDS.to("meta")), ValueError, "ids is on meta but image_features is on cpu"),
    (dict(extra_texts=torch.zeros(3, 5).double()), ValueError,
     r"image_features and extra_texts have shapes \(15, 8\) and \(3, 5\)"),
    (dict(extra_texts=torch.zeros(3, WIDTH)), TypeError, "extra_texts is torch.float32 but"),
    (dict(extra_texts=3), TypeError, "extra_texts is a int; accepted: a torch tensor"),
])  # fmt: skip
def test_bad_input_is_named(loss, given, kind, words):
    x, y, _ = inputs()
    with pytest.raises(kind, match=words):
        loss(x, y, **given)


@pytest.mark.parametrize("given", [{"ids": IDS}, {"extra_texts": torch.zeros(2, WIDTH)}])
def test_the_cuda_backend_refuses(given, monkeypatch):
    x, y, _ = inputs(torch.float32)
    words = "'cuda' takes no ids and no extra_texts; accepted: auto, torch, triton"
    with pytest.raises(ValueError, match=f"^backend={words}"):
        losses.ClipLoss(backend="cuda")(x, y, 10.0, **given)
    with pytest.raises(ValueError, match=f"^backend={words}"):
        losses.siglip_loss(x, y, 10.0, -3.0, backend="cuda", **given)
    monkeypatch.setenv("FASTCLIP_BACKEND", "cuda")
    with pytest.raises(ValueError, match=f"^FASTCLIP_BACKEND={words}"):
        losses.clip_loss(x, y, 10.0, **given)
    assert losses.siglip_loss(x, y, 10.0, -3.0, **given).isfinite()


@pytest.mark.parametrize("given", [
    {"ids": IDS}, {"extra_texts": torch.zeros(2, WIDTH)}, {"same": "ignore"},
])  # fmt: skip
def test_distillation_refuses(given):
    x, y, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match="^DistillClipLoss takes no ids, no same and no extra"):
        losses.DistillClipLoss()(x, y, 10.0, x.detach(), y.detach(), 10.0, **given)


@pytest.mark.parametrize("given", [{"ids": IDS}, {"extra_texts": torch.zeros(2, WIDTH)}])
@pytest.mark.parametrize("kind", [losses.ClipLoss, losses.SigLipLoss])
@pytest.mark.filterwarnings("ignore:Same overrides")
def test_an_override_refuses(kind, given):
    class Same(kind):
        def get_logits(self, *arguments, **options):
            return super().get_logits(*arguments, **options)

    x, y, _ = inputs(torch.float32)
    with pytest.raises(ValueError, match="^Same overrides a method that makes logits"):
        Same()(x, y, 10.0, None, **given)


def test_autocast_casts_extra_texts():
    x, y, extra = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = clip_of(x, y, ids=IDS, extra_texts=extra)
    want = clip_of(x.bfloat16(), y.bfloat16(), ids=IDS, extra_texts=extra.bfloat16())
    assert got.dtype == torch.float32 and torch.equal(got, want)
    grads = torch.autograd.grad(got, (x, y, extra))
    assert all(g.dtype == torch.float32 for g in grads)


def test_on_the_meta_device():
    x, y, extra = (torch.randn(rows, WIDTH, device="meta") for rows in (N, N, K))
    for loss in (clip_of, siglip_of):
        assert loss(x, y, ids=IDS.to("meta"), extra_texts=extra).shape == ()


@pytest.mark.parametrize("same", ["positive", "ignore"])
@pytest.mark.parametrize("ids", [torch.arange(N) // 2, torch.zeros(N, dtype=torch.long)])
def test_infinite_logits_spread_no_nan(ids, same):
    """Few pairs of a tile are listed, many compared: neither makes inf - inf or 0 * inf."""
    x, y, _ = inputs()
    loss = losses.siglip_loss(x, y, 10.0, -torch.inf, ids=ids, same=same)
    assert loss == torch.inf
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (x, y)))


@pytest.mark.parametrize("module", [losses.ClipLoss, losses.SigLipLoss])
def test_an_override_is_told_what_of_same_is_wrong(module):
    class Overrides(module):
        def get_logits(self, *arguments, **options):
            return super().get_logits(*arguments, **options)

    x, y, _ = inputs()
    bias = () if module is losses.ClipLoss else (-3.0,)
    loss = Overrides()
    with pytest.raises(ValueError, match="same='drop'; accepted: positive, ignore"):
        loss(x, y, 10.0, *bias, same="drop")
    with pytest.raises(ValueError, match="takes no ids and no extra_texts"):
        loss(x, y, 10.0, *bias, ids=IDS)
    assert torch.equal(loss(x, y, 10.0, *bias, same="ignore"), loss(x, y, 10.0, *bias))
