"""A subclass that overrides what makes the logits is gone through, never around."""

import types
import warnings

import pytest
import torch
import torch.nn.functional as F
from open_clip import loss as theirs

from fastclip import loss as ours
from fastclip.functional.settings import warn_once


@pytest.fixture(autouse=True)
def forget_warnings():
    warn_once.cache_clear()


def inputs(rows: int = 8):
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(rows, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [F.normalize(t, dim=1).requires_grad_() for t in pair] + [
        torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    ]


def hard_negatives(base):
    class HardNegatives(base):
        """Sharpens every negative by its own similarity."""

        def get_logits(self, image_features, text_features, logit_scale, logit_bias=None):
            logits = super().get_logits(image_features, text_features, logit_scale, logit_bias)
            off = 1 - torch.eye(len(image_features), dtype=logits[0].dtype)
            return tuple(z + 0.5 * off * z.detach() for z in logits)

    return HardNegatives


def shuffled_pairs(base):
    class ShuffledPairs(base):
        def get_ground_truth(self, device, num_logits):
            return super().get_ground_truth(device, num_logits).flip(0)

    return ShuffledPairs


def smooth_targets(base):
    class SmoothTargets(base):
        def dist_loss(self, teacher_logits, student_logits):
            return super().dist_loss(teacher_logits / 2, student_logits)

    return SmoothTargets


def soft_negatives(base):
    class SoftNegatives(base):
        def _loss(self, image, text, logit_scale, logit_bias=None, negative_only=False):
            return 0.5 * super()._loss(image, text, logit_scale, logit_bias, negative_only)

    return SoftNegatives


def label_noise(base):
    class LabelNoise(base):
        def get_ground_truth(self, device, dtype, num_logits, negative_only=False):
            return 0.9 * super().get_ground_truth(device, dtype, num_logits, negative_only)

    return LabelNoise


def cold(base):
    class Cold(base):
        def get_logits(self, image_features, text_features, logit_scale, logit_bias=None):
            return super().get_logits(image_features, text_features, logit_scale / 2, logit_bias)

    return Cold


def compare(make, name, extra):
    found = {}
    for module in (ours, theirs):
        leaves = inputs()
        outputs = make(getattr(module, name))()(*leaves, *extra)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        sum(outputs).backward()
        found[module] = [*outputs, *(t.grad for t in leaves)]
    for mine, other in zip(found[ours], found[theirs], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-15)
    return found[ours][0]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (hard_negatives, "ClipLoss"),
        (shuffled_pairs, "ClipLoss"),
        (hard_negatives, "DistillClipLoss"),
        (smooth_targets, "DistillClipLoss"),
        (soft_negatives, "SigLipLoss"),
        (label_noise, "SigLipLoss"),
        (cold, "SigLipLoss"),
    ],
)
def test_an_override_gives_what_it_gives_in_open_clip(make, name):
    extra = {
        "ClipLoss": (torch.tensor(-1.0, dtype=torch.float64),),
        "DistillClipLoss": tuple(t.detach() for t in inputs()),
        "SigLipLoss": (torch.tensor(-5.0, dtype=torch.float64),),
    }[name]
    with pytest.warns(UserWarning, match="materialises the logits"):
        compare(make, name, extra)


def test_the_warning_comes_once_and_never_without_an_override():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours.ClipLoss()(*inputs())
        assert not caught
        loss = hard_negatives(ours.ClipLoss)()
        loss(*inputs())
        loss(*inputs())
        assert [str(w.message).split()[0] for w in caught] == ["HardNegatives"]


def test_an_override_on_the_instance_counts():
    loss = ours.ClipLoss()
    plain = loss(*inputs())

    def get_ground_truth(self, device, num_logits):
        return torch.arange(num_logits, device=device).flip(0)

    loss.get_ground_truth = types.MethodType(get_ground_truth, loss)
    with pytest.warns(UserWarning, match="get_ground_truth"):
        assert loss(*inputs()) != plain


def test_gather_features_takes_effect():
    class Twice(ours.ClipLoss):
        def gather_features(self, image_features, text_features):
            raise AssertionError("called")

    loss = Twice(world_size=2)
    with pytest.warns(UserWarning, match="gather_features"), pytest.raises(AssertionError):
        loss(*inputs())


def test_methods_called_directly_give_open_clips_values():
    image, text, scale = inputs()
    bias = torch.tensor(-2.0, dtype=torch.float64)
    pairs = [
        (loss.get_logits(image, text, scale, bias), loss.get_ground_truth(image.device, 8))
        for loss in (ours.ClipLoss(cache_labels=True), theirs.ClipLoss(cache_labels=True))
    ]
    torch.testing.assert_close(*pairs, rtol=0, atol=0)
    pairs = [
        (
            loss.get_logits(image, text, scale, bias),
            loss.get_ground_truth(image.device, image.dtype, 8, negative_only=True),
            loss.get_ground_truth(image.device, image.dtype, 8),
            loss._loss(image, text, scale, bias),
            loss._loss(image, text, scale, bias, negative_only=True),
        )
        for loss in (ours.SigLipLoss(), theirs.SigLipLoss())
    ]
    torch.testing.assert_close(*pairs, rtol=0, atol=0)
    teacher, student = image @ text.T, text @ image.T
    assert torch.equal(
        ours.DistillClipLoss().dist_loss(teacher, student),
        theirs.DistillClipLoss().dist_loss(teacher, student),
    )


def test_labels_are_cached_where_asked():
    loss = ours.ClipLoss(cache_labels=True, local_loss=True, rank=1, world_size=3)
    labels = loss.get_ground_truth(torch.device("cpu"), 4)
    assert labels.tolist() == [4, 5, 6, 7]
    assert loss.get_ground_truth(torch.device("cpu"), 4) is labels
    assert loss.prev_num_logits == 4 and loss.labels == {torch.device("cpu"): labels}
    assert loss.get_ground_truth(torch.device("cpu"), 5).tolist() == [5, 6, 7, 8, 9]
