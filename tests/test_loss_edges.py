"""Nothing to learn from, values beyond all bounds, and tensors without values: as open_clip's and
torch's losses have them."""

import pytest
import torch
import torch.nn.functional as F
from open_clip import loss as theirs
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastclip import loss as ours
from fastclip.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float64]
INF, NAN = float("inf"), float("nan")


def run(loss, *inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The losses, and the gradients of their sum at copies of the inputs."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    outputs = loss(*leaves)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    sum(o.sum() for o in outputs).backward()
    return [o.detach() for o in outputs], [leaf.grad for leaf in leaves]


# --- nothing to learn from


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", [(1.0, 0.0), (2.0, 1.0)])
@pytest.mark.parametrize("ignored", ["all", "a row", "no tokens"])
def test_captions_that_are_all_padding(ignored, weights, dtype):
    """Of no tokens the mean is NaN and its gradient 0, and no NaN reaches the features."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, generator=generator).to(dtype)
    labels = torch.randint(1, 5, (3, 4), generator=generator)
    labels[0 if ignored == "a row" else slice(None)] = 0
    if ignored == "no tokens":
        logits, labels = logits[:, :0], labels[:, :0]
    x, y = (torch.randn(3, 8, generator=generator).to(dtype) for _ in range(2))
    scale = torch.tensor(10.0, dtype=dtype)

    def of(module):
        return lambda x, y, z, s: module.CoCaLoss(*weights)(x, y, z, labels, s)

    found, gradients = run(of(ours), x, y, logits, scale)
    expected, _ = run(of(theirs), x, y, logits, scale)
    assert found[1].isnan() == expected[1].isnan() == (ignored != "a row")
    assert (gradients[2] == 0).all() == (ignored != "a row")
    for gradient in gradients:
        assert gradient is None or gradient.isfinite().all()
    genlip, (gradient,) = run(lambda z: ours.GenLipLoss(0)(z, labels), logits)
    assert genlip[0].isnan() == found[1].isnan()
    torch.testing.assert_close(weights[0] * gradient, gradients[2])


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss", "DistillClipLoss"])
def test_no_pairs_have_no_gradient(name):
    """Whatever comes from above: a caller may divide by their number."""
    x, y = torch.zeros(2, 0, 8)
    scale = torch.tensor(10.0)
    loss = getattr(ours, name)()
    extra = {"ClipLoss": (), "SigLipLoss": (scale,), "DistillClipLoss": (x, y, scale)}[name]

    def divided(x, y, s):
        outputs = loss(x, y, s, *extra)
        return sum(outputs if isinstance(outputs, tuple) else [outputs]) / 0

    _, gradients = run(divided, x, y, scale)
    assert (gradients[2] == 0).all()


# --- values beyond all bounds


def wide(loss):
    """``loss`` of 16-bit features in float32: open_clip's takes the scale in no other dtype."""
    return lambda *t: loss(*(v.float() if v.dtype == torch.bfloat16 else v for v in t))


def spoilt(value: float, where: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Features, scale and bias, one of which or some of whose entries are ``value``."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, 8, generator=generator).to(dtype) for _ in range(2))
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    inputs = {
        "image": x, "text": y, "scale": torch.tensor(5.0, dtype=parameter),
        "bias": torch.tensor(-3.0, dtype=parameter),
    }  # fmt: skip
    if where in ("scale", "bias"):
        inputs[where].fill_(value)
    else:
        inputs[where.split()[0]][2, slice(None) if "row" in where else 3] = value
    return tuple(inputs.values())


def losses_of(module, dtype: torch.dtype) -> dict:
    teacher = spoilt(1.0, "scale", torch.bfloat16)[:2]
    convert = wide if module is theirs else (lambda loss: loss)
    return {
        "clip": convert(lambda x, y, s, b: module.ClipLoss()(x, y, s, b)),
        "siglip": convert(lambda x, y, s, b: module.SigLipLoss()(x, y, s, b)),
        "student": convert(lambda x, y, s, b: module.DistillClipLoss()(
            x, y, s, *(t.to(x.dtype) for t in teacher), 4.0)),
    }  # fmt: skip


def same_kind(found: Tensor, expected: Tensor) -> bool:
    """NaN for NaN, infinity for the same infinity, a number for a number."""
    same = found.nan_to_num(0, 1, -1) == expected.nan_to_num(0, 1, -1)
    finite = found.isfinite() & expected.isfinite()
    return bool(((found.isnan() == expected.isnan()) & (same | finite)).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", ["image", "image row", "text", "scale", "bias"])
@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_not_finite(value, where, dtype):
    inputs = spoilt(value, where, dtype)
    expected = losses_of(theirs, dtype)
    for name, loss in losses_of(ours, dtype).items():
        if name == "student" and where == "bias":
            continue  # it has none
        found, gradients = run(loss, *inputs)
        wanted, peer = run(expected[name], *inputs)
        for f, e in zip(found, wanted, strict=True):
            assert same_kind(f, e.to(f.dtype)), (name, f, e)
        for f, e in zip(gradients, peer, strict=True):
            if f is not None:
                assert torch.equal(f.isfinite(), e.isfinite()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("where", ["image", "image row", "text", "scale"])
@pytest.mark.parametrize("value", [1e15, -1e20])
def test_huge(value, where, dtype):
    """Softmaxes that are 1 at one logit, sigmoids that are 0 or 1."""
    inputs = spoilt(value, where, dtype)
    expected = losses_of(theirs, torch.float64)
    for name, loss in losses_of(ours, dtype).items():
        found, gradients = run(loss, *inputs)
        wanted, exact = run(expected[name], *(t.double() for t in inputs))
        for f, e in zip(found, wanted, strict=True):
            torch.testing.assert_close(f.double(), e, rtol=1e-5, atol=0)
        for f, e in zip(gradients, exact, strict=True):
            if f is not None:  # 1e-15: a bias has no gradient but what rounding makes of it
                unit = 2.0**-11 + torch.finfo(dtype).eps
                assert (f.double() - e).norm() <= unit * e.norm() + 1e-15, name


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_logits_that_are_not_finite(value):
    """Of a token that counts and of one that does not."""
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, -100, 0, 5])
    for place in ((0, 2), (0, 3), (1, 3)):
        logits = logits.clone()
        logits[place] = value
        found, gradient = run(lambda z: ours.GenLipLoss()(z, labels), logits)
        wanted, expected = run(lambda z: F.cross_entropy(z, labels), logits)
        assert same_kind(found[0], wanted[0]), place
        assert torch.equal(gradient[0].isfinite(), expected[0].isfinite()), place


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("value", [INF, -INF, NAN, 1e30])
def test_a_layer_whose_values_are_not_finite(value, where):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in ((5, 4), (7, 4), (7,))]
    inputs[where].view(-1)[5] = value
    labels = torch.tensor([0, 1, 2, 3, 6])
    for reduction in ("mean", "none"):
        (found, gradients), (wanted, expected) = (
            run(lambda h, w, b: loss(h, w, labels, b, reduction=reduction), *inputs)  # noqa: B023
            for loss in (ours.linear_cross_entropy, reference.linear_cross_entropy)
        )
        assert same_kind(found[0], wanted[0])
        for f, e in zip(gradients, expected, strict=True):
            assert torch.equal(f.isfinite(), e.isfinite())


# --- tensors without values


def on(device: str, dtype: torch.dtype) -> list[tuple]:
    """Of every loss: its name, the loss, its differentiable inputs and the shape of its value."""

    def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, device=device, dtype=dtype)

    x, y = empty(6, 8), empty(6, 8)
    teacher = empty(6, 3), empty(6, 3), 4.0
    scale, bias = empty(dtype=torch.float32), empty(dtype=torch.float32)
    h, w, b, z = empty(2, 3, 8), empty(9, 8), empty(9), empty(2, 3, 9)
    labels, dense = empty(2, 3, dtype=torch.int64), empty(2, 3, 9)
    sparse = empty(7, dtype=torch.int64), empty(11, dtype=torch.int64)
    ngrams = sparse[0], empty(11, 2, dtype=torch.int64)
    pairs = x, y, scale, bias

    def mixed(*arguments, **options):
        return ours.ngram_cross_entropy(*arguments, mixture=[0.7, 0.3], **options)

    cases = [
        ("ClipLoss", lambda *t: ours.ClipLoss()(*t), pairs, ()),
        ("clip_loss", lambda x, y: ours.clip_loss(x, y, 10.0), pairs[:2], ()),
        ("SigLipLoss", lambda *t: ours.SigLipLoss()(*t), pairs, ()),
        ("siglip_loss", lambda x, y: ours.siglip_loss(x, y, 10.0), pairs[:2], ()),
        ("DistillClipLoss", lambda *t: ours.DistillClipLoss()(*t, *teacher), pairs[:3], ()),
        ("CoCaLoss", lambda x, y, s, z: ours.CoCaLoss(1.0, 1.0)(x, y, z, labels, s),
         (*pairs[:3], z), ()),
        ("GenLipLoss", lambda z: ours.GenLipLoss()(z, labels), (z,), ()),
    ]  # fmt: skip
    weights = empty(2, 3, dtype=torch.float32)
    for reduction, shape in (("mean", ()), ("none", (2, 3))):
        for loss, target in (
            (ours.linear_cross_entropy, labels),
            (ours.multi_target_cross_entropy, sparse),
            (mixed, ngrams),
            (ours.linear_sigmoid_cross_entropy, sparse),
            (ours.linear_sigmoid_cross_entropy, dense),
        ):

            def called(h, w, b, loss=loss, target=target, reduction=reduction):
                return loss(h, w, target, b, reduction=reduction, row_weight=weights)

            cases.append((f"{loss.__name__} {reduction}", called, (h, w, b), shape))
    return cases


def check_shapes(device: str, dtype: torch.dtype) -> None:
    for name, loss, inputs, shape in on(device, dtype):
        leaves = [t.requires_grad_() for t in inputs]
        outputs = loss(*leaves)
        for value in outputs if isinstance(outputs, tuple) else (outputs,):
            assert (value.shape, value.dtype) == (shape, torch.float32), name
            assert value.device.type == device, name
        total = sum(outputs) if isinstance(outputs, tuple) else outputs.sum()
        for gradient, leaf in zip(torch.autograd.grad(total, leaves), leaves, strict=True):
            assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype), name
            assert gradient.device.type == device, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_on_the_meta_device(backend, dtype, monkeypatch):
    monkeypatch.setenv("FASTCLIP_BACKEND", backend)
    check_shapes("meta", dtype)


def test_fake_tensors():
    with FakeTensorMode():
        check_shapes("cpu", torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            check_shapes("cpu", torch.float32)


def test_a_backend_that_nothing_has_is_refused_on_the_meta_device():
    with pytest.raises(ValueError, match="'metal'"):
        ours.ClipLoss(backend="metal")(*torch.empty(2, 4, 8, device="meta"), 1.0)
