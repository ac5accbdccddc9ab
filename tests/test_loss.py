"""Every class on one process against open_clip's own, in values and gradients."""

import copy
import inspect
import itertools
import pickle

import pytest
import torch
import torch.nn.functional as F
from bars import Bars
from engine_checks import clip_bars
from open_clip import loss as theirs
from torch import Tensor

from fastclip import loss as ours
from fastclip.functional.caption import caption_cross_entropy

N, WIDTH = 24, 32
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def features(dtype: torch.dtype, width: int = WIDTH, seed: int = 0, noise: float = 3.0) -> tuple:
    """Rows of unit length, alike in pairs: the smaller the noise, the more."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(N, width, generator=generator, dtype=torch.float64)
    text = image + noise * torch.randn(N, width, generator=generator, dtype=torch.float64)
    return tuple(F.normalize(t, dim=1).to(dtype).requires_grad_() for t in (image, text))


def leaf(value: float, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, value, dtype=dtype, requires_grad=True)


def exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.detach().double().requires_grad_() for t in tensors)


def run(loss, *inputs: Tensor, **kwargs) -> tuple[list[Tensor], list[Tensor]]:
    """The losses, and the gradients of their sum."""
    outputs = loss(*inputs, **kwargs)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    leaves = [i for i in inputs if isinstance(i, Tensor) and i.requires_grad]
    sum(outputs).backward()
    return [o.detach() for o in outputs], [t.grad for t in leaves]


def error(found: Tensor, truth: Tensor) -> float:
    return ((found.double() - truth).norm() / truth.norm()).item()


def assert_within_bars(
    found: list,
    peer: list,
    truth: list,
    dtype: torch.dtype,
    sharp: Bars | None = None,
):
    """The bars of the design, branch by branch: float32's up to a scale of 20, ``sharp`` beyond."""
    if sharp is not None and dtype == torch.float32:
        sharp.check(found, truth, ("x", "y", "scale"))
        return
    for f, p, t in zip(found, peer, truth, strict=True):
        if t.norm() == 0:
            assert f.abs().max() == 0
        elif dtype == torch.float64:
            assert error(f, t) < 1e-12
        elif dtype == torch.float32:
            assert error(f, p.double()) < 1e-5
        else:
            # As near as the dtype can hold the exact value, and fp32 accumulation.
            assert error(f, t) <= 1.1 * error(t.to(f.dtype), t) + 2e-6


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("scale", [14.3, 100.0])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_loss_is_open_clips(dtype, shape, scale, flags):
    image, text = features(dtype)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    inputs = (image, text, leaf(scale, shape, parameter), leaf(-2.0, shape, parameter))
    losses, grads = run(ours.ClipLoss(*flags), *inputs)
    # open_clip cannot take the product of 16-bit features and an fp32 scale: its scale is 16-bit.
    peer_inputs = (i.detach().to(dtype).requires_grad_() for i in inputs)
    peer = run(theirs.ClipLoss(*flags), *peer_inputs)
    truth = run(theirs.ClipLoss(*flags), *exact(*inputs))
    # The bias shifts every logit: its gradient is zero, where open_clip's is rounding.
    assert grads[3].abs().max() == 0
    sharp = clip_bars(*(t.detach().double() for t in inputs[:3]), dtype) if scale > 20 else None
    assert_within_bars(
        losses + grads[:3], peer[0] + peer[1][:3], truth[0] + truth[1][:3], dtype, sharp
    )
    assert losses[0].shape == () and losses[0].dtype == parameter
    for grad, given in zip(grads, inputs, strict=True):
        assert grad.dtype == given.dtype and grad.shape == given.shape


def test_bf16_beats_open_clips_on_aligned_features_at_scale_100():
    image, text = features(torch.bfloat16, width=8, noise=0.5)
    inputs = (image, text, leaf(100.0, ()))
    _, grads = run(ours.ClipLoss(), *inputs)
    _, peer = run(theirs.ClipLoss(), *(i.detach().bfloat16().requires_grad_() for i in inputs))
    _, truth = run(theirs.ClipLoss(), *exact(*inputs))
    for f, p, t in zip(grads, peer, truth, strict=True):
        assert 5 * error(f, t) < error(p, t)


@pytest.mark.parametrize("chunk_size", [0, 7])
@pytest.mark.parametrize("bias", [-10.0, None])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_siglip_loss_is_open_clips(dtype, shape, bias, chunk_size):
    image, text = features(dtype)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    inputs = (image, text, leaf(10.0, shape, parameter))
    if bias is not None:
        inputs += (leaf(bias, shape, parameter),)
    given = {} if bias is not None else {"logit_bias": None}
    losses, grads = run(ours.SigLipLoss(chunk_size=chunk_size), *inputs, **given)
    peer = run(
        theirs.SigLipLoss(), *(i.detach().to(dtype).requires_grad_() for i in inputs), **given
    )
    truth = run(theirs.SigLipLoss(), *exact(*inputs), **given)
    assert_within_bars(losses + grads, peer[0] + peer[1], truth[0] + truth[1], dtype)
    assert losses[0].dtype == parameter and grads[2].shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_distill_clip_loss_is_open_clips(dtype):
    image, text = features(dtype)
    teacher = [t.detach() for t in features(dtype, width=20, seed=1)]
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    student = (image, text, leaf(14.3, (), parameter))
    losses, grads = run(ours.DistillClipLoss(), *student, *teacher, 20.0)
    peer_student = (t.detach().to(dtype).requires_grad_() for t in student)
    peer = run(theirs.DistillClipLoss(), *peer_student, *teacher, 20.0)
    truth = run(theirs.DistillClipLoss(), *exact(*student), *(t.double() for t in teacher), 20.0)
    assert_within_bars(losses + grads, peer[0] + peer[1], truth[0] + truth[1], dtype)


@pytest.mark.parametrize("weights", [(2.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_coca_loss_is_open_clips(dtype, weights):
    image, text = features(dtype)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(N, 5, 50, generator=generator).mul(3).to(dtype).requires_grad_()
    labels = torch.randint(0, 50, (N, 5), generator=generator)
    labels[:, 3:] = 7
    inputs = (image, text, logits, labels, leaf(14.3, (), parameter))

    def at(cast):
        return (t if t is labels else cast(t).detach().requires_grad_() for t in inputs)

    options = {"pad_id": 7}
    losses, grads = run(ours.CoCaLoss(*weights, **options), *inputs)
    peer = run(theirs.CoCaLoss(*weights, **options), *at(lambda t: t.to(dtype)))
    truth = run(theirs.CoCaLoss(*weights, **options), *at(Tensor.double))
    assert losses[1].dtype == parameter
    if weights[1] == 0:
        # As in open_clip, an integer 0 and no gradient.
        assert losses[0].dtype == peer[0][0].dtype and losses[0] == 0
        assert grads[0] is None and grads[1] is None
        grads, peer, truth = ([None, None, g[2]] for g in (grads, peer[1], truth[1]))
        assert_within_bars(grads[2:], peer[2:], truth[2:], dtype)
    else:
        assert_within_bars(losses + grads, peer[0] + peer[1], truth[0] + truth[1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_genlip_loss_is_the_textbooks(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 11, 40, generator=generator).mul(4).to(dtype).requires_grad_()
    labels = torch.randint(0, 40, (3, 11), generator=generator)
    labels[:, :4] = -1
    losses, grads = run(ours.GenLipLoss(ignore_index=-1), logits, labels)

    def textbook(logits, labels):
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)

    peer = run(textbook, logits.detach().requires_grad_(), labels)
    truth = run(textbook, *exact(logits), labels)
    assert_within_bars(losses + grads, peer[0] + peer[1], truth[0] + truth[1], dtype)
    assert grads[0].dtype == dtype and (grads[0][:, :4] == 0).all()


def test_caption_loss_in_small_chunks_is_the_same():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 9, 30, generator=generator)
    labels = torch.randint(0, 30, (4, 9), generator=generator)
    image, text = features(torch.float32)
    found = []
    for workspace_bytes in (3 * 2 * 30 * 4, 2**20):
        leaves = logits.clone().requires_grad_()
        loss = ours.CoCaLoss(1.0, 0.0, workspace_bytes=workspace_bytes)
        found.append(run(loss, image, text, leaves, labels, 1.0)[1][2])
    assert torch.equal(*found)


def test_output_dict_has_open_clips_keys():
    image, text = (t.detach() for t in features(torch.float32))
    logits, labels = torch.zeros(N, 5, 50), torch.ones(N, 5, dtype=torch.long)
    calls = {
        "ClipLoss": ((), (image, text, 10.0)),
        "SigLipLoss": ((), (image, text, 10.0, -10.0)),
        "DistillClipLoss": ((), (image, text, 10.0, image, text, 10.0)),
        "CoCaLoss": ((1.0, 1.0), (image, text, logits, labels, 10.0)),
    }
    for name, (arguments, inputs) in calls.items():
        mine = getattr(ours, name)(*arguments)
        other = getattr(theirs, name)(*arguments)(*inputs, output_dict=True)
        found = mine(*inputs, output_dict=True)
        assert found.keys() == other.keys()
        values = mine(*inputs)
        values = values if isinstance(values, tuple) else (values,)
        assert list(found.values()) == list(values)
    found = ours.GenLipLoss()(logits, labels, output_dict=True)
    assert list(found) == ["caption_loss"]


@pytest.mark.parametrize("name", ["ClipLoss", "CoCaLoss", "DistillClipLoss", "SigLipLoss"])
def test_arguments_are_open_clips(name):
    for method in ("__init__", "forward"):
        mine = inspect.signature(getattr(getattr(ours, name), method)).parameters
        other = inspect.signature(getattr(getattr(theirs, name), method)).parameters
        positional = [
            (p.name, p.default)
            for p in mine.values()
            if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "chunk_size"
        ]
        assert positional == [(p.name, p.default) for p in other.values()]


@pytest.mark.parametrize("name", ["ClipLoss", "DistillClipLoss", "SigLipLoss"])
def test_attributes_are_open_clips(name):
    for attribute, value in vars(getattr(theirs, name)()).items():
        if not attribute.startswith("_"):
            assert getattr(getattr(ours, name)(), attribute) == value


def test_functions_are_the_modules():
    image, text = features(torch.float32)
    assert torch.equal(ours.clip_loss(image, text, 14.3), ours.ClipLoss()(image, text, 14.3))
    assert torch.equal(
        ours.siglip_loss(image, text, 14.3, -5.0), ours.SigLipLoss()(image, text, 14.3, -5.0)
    )


@pytest.mark.parametrize("frozen", [(0,), (1,), (0, 1), (2,), (0, 1, 2)])
@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss", "DistillClipLoss"])
def test_frozen_inputs_get_no_gradient_and_change_no_other(name, frozen):
    extra = {
        "ClipLoss": (),
        "SigLipLoss": (-10.0,),
        "DistillClipLoss": (*(t.detach() for t in features(torch.float64, seed=1)), 9.0),
    }[name]

    def grads(frozen):
        inputs = [*features(torch.float64), leaf(10.0, (), torch.float64)]
        for k in frozen:
            inputs[k].requires_grad_(False)
        outputs = getattr(ours, name)()(*inputs, *extra)
        total = sum(outputs) if isinstance(outputs, tuple) else outputs
        if total.requires_grad:
            total.backward()
        return [t.grad for t in inputs]

    for k, (found, full) in enumerate(zip(grads(frozen), grads(()), strict=True)):
        if k in frozen:
            assert found is None
        else:
            torch.testing.assert_close(found, full, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss", "DistillClipLoss"])
def test_autocast_takes_mixed_dtypes_and_its_own_for_products(name):
    image, _ = features(torch.float32)
    _, text = features(torch.bfloat16)
    extra = {
        "ClipLoss": (),
        "SigLipLoss": (-10.0,),
        "DistillClipLoss": (image.detach(), text.detach(), 9.0),
    }[name]
    loss = getattr(ours, name)()
    scale = leaf(10.0, ())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = loss(image, text, scale, *extra)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(outputs).backward()
    assert (image.grad.dtype, text.grad.dtype) == (torch.float32, torch.bfloat16)
    rounded = [image.detach().bfloat16(), text.detach()]
    extra = tuple(e.bfloat16() if isinstance(e, Tensor) else e for e in extra)
    plain = loss(*rounded, scale, *extra)
    plain = plain if isinstance(plain, tuple) else (plain,)
    for found, expected in zip(outputs, plain, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "loss", [ours.ClipLoss(True, True, True), ours.SigLipLoss(), ours.CoCaLoss(1.0, 2.0)]
)
def test_modules_survive_pickle_and_deepcopy(loss):
    image, text = (t.detach() for t in features(torch.float32))
    logits, labels = torch.zeros(N, 5, 50), torch.ones(N, 5, dtype=torch.long)
    inputs = {
        ours.ClipLoss: (image, text, 10.0),
        ours.SigLipLoss: (image, text, 10.0, -5.0),
        ours.CoCaLoss: (image, text, logits, labels, 10.0),
    }[type(loss)]
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin is not loss
        assert twin(*inputs) == loss(*inputs)


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss", "DistillClipLoss"])
def test_compiles_whole(name):
    image, text = features(torch.float32)
    extra = {
        "ClipLoss": (leaf(1.0, ()),),
        "SigLipLoss": (leaf(-10.0, ()),),
        "DistillClipLoss": (image.detach(), text.detach(), 9.0),
    }[name]
    loss = getattr(ours, name)()
    inputs = (image, text, leaf(10.0, ()), *extra)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, grads = run(compiled, *inputs)
    for t in inputs:
        if isinstance(t, Tensor):
            t.grad = None
    eager, eager_grads = run(loss, *inputs)
    for f, e in zip(found + grads, eager + eager_grads, strict=True):
        torch.testing.assert_close(f, e)


def test_caption_operator_is_sound():
    logits = torch.randn(6, 9, requires_grad=True)
    labels = torch.tensor([1, 8, -1, 0, -1, 3])
    torch.library.opcheck(caption_cross_entropy, (logits, labels, -1, 2**16))
