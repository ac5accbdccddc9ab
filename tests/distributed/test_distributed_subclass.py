"""Overrides and features gathered for them, over real processes."""

import itertools

import gloo_cases
import pytest
import torch
from gloo_pool import RankError

FLAGS = list(itertools.product([False, True], repeat=2))


def assert_close(found, expected, tolerance=1e-12):
    assert (found - expected).norm() <= tolerance * expected.norm().clamp(min=1e-3)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("world", [2, 3])
def test_hard_negatives_are_open_clips(pool, world, flags):
    found = pool(world).results(gloo_cases.hard_negative_step, "fastclip", flags)
    expected = pool(world).results(gloo_cases.hard_negative_step, "open_clip", flags)
    for mine, other in zip(found, expected, strict=True):
        assert "materialises the logits" in mine.pop("warning")
        for name in ("loss0", "image", "text", "scale"):
            assert_close(mine[name], other[name])


@pytest.mark.parametrize("way", ["bidir", "shift", "reduce", "gather"])
def test_a_siglip_override_is_open_clips(pool, way):
    found = pool(3).results(gloo_cases.soft_negative_step, "fastclip", way)
    expected = pool(3).results(gloo_cases.soft_negative_step, "open_clip", way)
    for mine, other in zip(found, expected, strict=True):
        for name in ("loss0", "image", "text", "scale", "bias"):
            assert_close(mine[name], other[name])


@pytest.mark.parametrize("flags", FLAGS)
def test_gathered_features_and_logits_are_open_clips(pool, flags):
    found = pool(3).results(gloo_cases.gathered, "fastclip", flags)
    expected = pool(3).results(gloo_cases.gathered, "open_clip", flags)
    for mine, other in zip(found, expected, strict=True):
        for name, value in other.items():
            torch.testing.assert_close(mine[name], value, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shards", ["any", "equal"])
def test_a_distillation_override_gathers_two_widths(pool, shards):
    found = pool(2).results(gloo_cases.distill_override, "fastclip", {"shards": shards})
    expected = pool(2).results(gloo_cases.distill_override, "open_clip", {})
    for mine, other in zip(found, expected, strict=True):
        for name in ("loss0", "loss1", "image", "text"):
            assert_close(mine[name], other[name])


def test_materialised_logits_refuse_ragged_shards(pool):
    answers = pool(2).run(gloo_cases.ragged_override)
    assert all(isinstance(a, RankError) and "[3, 2] rows" in a.message for a in answers)
