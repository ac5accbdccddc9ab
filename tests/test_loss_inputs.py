"""Bad input gets one sentence that names what was found and what is accepted."""

import pytest
import torch

from fastclip import loss as losses

X, Y = torch.zeros(4, 8), torch.ones(4, 8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.ClipLoss()(X, Y[:3], 1.0), ["4 rows", "3"]),
        (lambda: losses.ClipLoss()(X[None], Y, 1.0), ["(1, 4, 8)", "[n, D]"]),
        (lambda: losses.ClipLoss()(X, Y[:, :5], 1.0), ["(4, 5)", "same D"]),
        (lambda: losses.ClipLoss()(X, Y.bfloat16(), 1.0), ["bfloat16", "float32", "autocast"]),
        (lambda: losses.ClipLoss()(X.long(), Y.long(), 1.0), ["int64", "float16"]),
        (lambda: losses.ClipLoss()(X, Y, torch.ones(4)), ["logit_scale", "(4,)", "one element"]),
        (lambda: losses.ClipLoss()(X, Y, 1.0, torch.ones(4)), ["logit_bias", "(4,)"]),
        (lambda: losses.ClipLoss(backend="metal")(X, Y, 1.0), ["'metal'", "torch"]),
        (lambda: losses.ClipLoss(shards="even"), ["'even'", "any", "equal"]),
        (lambda: losses.ClipLoss(reduce_dtype="fp8"), ["'fp8'", "float32", "input"]),
        (lambda: losses.ClipLoss(use_horovod=True), ["use_horovod=True", "False"]),
        (lambda: losses.ClipLoss(workspace_bytes=8)(X, Y, 1.0), ["workspace_bytes=8", "at least"]),
        (
            lambda: losses.ClipLoss(workspace_bytes=-1)(X, Y, 1.0),
            ["workspace_bytes=-1", "1 or more"],
        ),
        (lambda: losses.ClipLoss(workspace_bytes=1e9)(X, Y, 1.0), ["workspace_bytes=1000000000.0"]),
        (lambda: losses.SigLipLoss(workspace_bytes="1G")(X, Y, 1.0, 0.0), ["workspace_bytes='1G'"]),
        (lambda: losses.ClipLoss()(X, Y, None), ["logit_scale is None", "a number"]),
        (lambda: losses.SigLipLoss()(X, Y, 1.0, "10"), ["logit_bias is '10'", "a number"]),
        (lambda: losses.ClipLoss()(X.numpy(), Y, 1.0), ["image_features is a ndarray", "tensor"]),
        (lambda: losses.ClipLoss()(X, [1.0], 1.0), ["text_features is a list", "tensor"]),
        (lambda: losses.ClipLoss(world_size=2)(X, Y, 1.0), ["world_size is 2", "initialised"]),
        (lambda: losses.SigLipLoss()(X, Y[:3], 1.0, 0.0), ["4 rows", "3"]),
        (lambda: losses.SigLipLoss(dist_impl="tree"), ["'tree'", "bidir", "gather"]),
        (lambda: losses.SigLipLoss(chunk_size=-1), ["chunk_size=-1"]),
        (lambda: losses.SigLipLoss()(X, Y, 1.0, torch.ones(2)), ["logit_bias", "(2,)"]),
        (
            lambda: losses.DistillClipLoss()(X, Y, 1.0, X.clone().requires_grad_(), Y, 1.0),
            ["dist_image_features", "gradient"],
        ),
        (
            lambda: losses.DistillClipLoss()(X, Y, 1.0, X, Y, torch.ones(1, requires_grad=True)),
            ["dist_logit_scale", "gradient"],
        ),
        (lambda: losses.DistillClipLoss()(X, Y, 1.0, X[:2], Y, 1.0), ["dist_image_features", "2"]),
        (
            lambda: losses.GenLipLoss()(torch.zeros(2, 3, 7), torch.zeros(2, 4).long()),
            ["(6, 7)", "(8,)", "one label per token"],
        ),
        (
            lambda: losses.GenLipLoss()(torch.zeros(1, 2, 7), torch.tensor([[7, 0]])),
            ["labels holds 7", "0 to 6", "ignore_index=-100"],
        ),
        (lambda: losses.CoCaLoss(1.0, 1.0, group_size=3), ["group_size"]),
        (lambda: losses.clip_loss(X, Y, 1.0, shards="even"), ["'even'", "any", "equal"]),
        (lambda: losses.siglip_loss(X, Y, 1.0, dist_impl="tree"), ["'tree'", "shift"]),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    message = str(raised.value)
    for word in words:
        assert word in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: losses.ClipLoss()(x, y, 1.0),
        lambda x, y: losses.SigLipLoss()(x, y, 1.0, -1.0),
        lambda x, y: losses.DistillClipLoss()(x, y, 1.0, y, y, 2.0)[1],
        lambda x, y: losses.GenLipLoss()(x, torch.tensor([0, 1, 2, 3])),
        lambda x, y: losses.linear_cross_entropy(x, y, torch.tensor([0, 1, 2, 3])),
    ],
    ids=["clip", "siglip", "distill", "caption", "linear"],
)
def test_second_derivatives_are_refused(loss):
    x, y = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    (first,) = torch.autograd.grad(loss(x, y), x)
    assert first.isfinite().all() and first.any() and not first.requires_grad
    with pytest.raises(RuntimeError, match="fastclip's losses have no second derivative"):
        torch.autograd.grad(loss(x, y), x, create_graph=True)


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss"])
def test_a_batch_of_one_and_of_none(name):
    extra = (-10.0,) if name == "SigLipLoss" else ()
    for rows in (1, 0):
        x, y = (torch.randn(rows, 8, requires_grad=True) for _ in range(2))
        loss = getattr(losses, name)()(x, y, 10.0, *extra)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(x.grad).all()
        assert rows or loss == 0
