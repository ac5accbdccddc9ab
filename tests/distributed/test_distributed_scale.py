"""Scale gradients rank by rank, where every rank's losses have upstream gradients of their own; and
gradients by ``torch.func``."""

import itertools

import gloo_cases
import pytest
import torch

import fastclip.loss

WORLD = 3
UPSTREAM = (1.0, -0.25, 3.0)
# Of both losses: alike in direction, and not.
PAIRS = {
    "one direction": ((1.0, 0.5), (-2.0, -1.0), (0.0, 0.0)),
    "several": ((1.0, 0.5), (2.0, -3.0), (0.0, 1.0)),
}
FLAGS = list(itertools.product([False, True], repeat=2))


def assert_close(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found - expected).norm() <= 1e-12 * expected.norm().clamp(min=1e-3)


@pytest.mark.parametrize("upstream", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("flags", FLAGS)
def test_distillation(pool, flags, upstream):
    case = ((4,) * WORLD, flags, upstream)
    found = pool(WORLD).results(gloo_cases.distill_step, "fastclip", *case)
    expected = pool(WORLD).results(gloo_cases.distill_step, "open_clip", *case)
    if flags == (True, True):
        # The gradient of this rank's images against all texts; the sum is what open_clip's is.
        found, expected = (
            [{"scale": sum(r["scale"] for r in ranks)}] for ranks in (found, expected)
        )
    for mine, other in zip(found, expected, strict=True):
        assert_close(mine["scale"], other["scale"])


def test_distillation_over_ragged_shards(pool):
    """Without ``local_loss`` each rank's losses are those of the batch, which one process has."""
    rows, flags = (5, 0, 3), (False, True)
    alone = [
        pool(1).results(gloo_cases.distill_step, "open_clip", (8,), (False, False), (unit,))[0]
        for unit in ((1.0, 0.0), (0.0, 1.0))
    ]
    upstream = PAIRS["several"]
    found = pool(WORLD).results(gloo_cases.distill_step, "fastclip", rows, flags, upstream)
    total = [sum(pair[k] for pair in upstream) for k in range(2)]
    for mine, own in zip(found, upstream, strict=True):
        assert_close(mine["scale"], own[0] * alone[0]["scale"] + own[1] * alone[1]["scale"])
    for name in ("image", "text"):
        assert_close(
            torch.cat([mine[name] for mine in found]),
            total[0] * alone[0][name] + total[1] * alone[1][name],
        )


@pytest.mark.parametrize("flags", FLAGS[:3])
def test_contrastive(pool, flags):
    case = ((4,) * WORLD, flags, torch.float64, 10.0, (), UPSTREAM)
    found = pool(WORLD).results(gloo_cases.clip_step, "fastclip", *case)
    expected = pool(WORLD).results(gloo_cases.clip_step, "open_clip", *case)
    for mine, other in zip(found, expected, strict=True):
        assert_close(mine["scale"], other["scale"])


@pytest.mark.parametrize("way", ["bidir", "gather"])
def test_sigmoid(pool, way):
    case = ((4,) * WORLD, way, torch.float64, (), UPSTREAM)
    found = pool(WORLD).results(gloo_cases.siglip_step, "fastclip", *case)
    expected = pool(WORLD).results(gloo_cases.siglip_step, "open_clip", *case)
    for mine, other in zip(found, expected, strict=True):
        assert_close(mine["scale"], other["scale"])
        assert_close(mine["bias"], other["bias"])


def under_transforms(rank: int, world: int, name: str) -> tuple:
    """A loss and its gradients by autograd, and by ``torch.func``."""
    image, text = gloo_cases.own_rows(gloo_cases.features(6, torch.float64), (4, 2), rank)
    teacher = [t.detach().flip(0) for t in (image, text)]
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)

    def loss(image, text, scale):
        kind = getattr(fastclip.loss, name)
        if name == "SigLipLoss":
            return kind(rank=rank, world_size=world)(image, text, scale, -scale)
        made = kind(True, True, rank=rank, world_size=world)
        if name == "DistillClipLoss":
            return sum(made(image, text, scale, *teacher, 5.0))
        return made(image, text, scale)

    leaves = image, text, scale
    value = loss(*leaves)
    plain = (value.detach(), *torch.autograd.grad(value, leaves))
    constants = [t.detach() for t in leaves]
    found, value = torch.func.grad_and_value(loss, (0, 1, 2))(*constants)
    return plain, (value, *found)


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss", "DistillClipLoss"])
def test_transforms_of_torch_func(pool, name):
    for plain, transformed in pool(2).results(under_transforms, name):
        torch.testing.assert_close(transformed, plain, rtol=0, atol=0)
