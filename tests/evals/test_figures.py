"""Recall and zero-shot accuracy against the obvious computation."""

import itertools

import pytest
import torch

from fastclip.evals.retrieval import chance_of_any, recall_at_k, recall_of_any, target_ranks
from fastclip.evals.zeroshot import class_features, top1_accuracy


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def test_recall_against_a_full_sort():
    queries, candidates = unit(1500, 8), unit(40, 8, seed=1)
    targets = torch.arange(1500) % 40
    order = (queries @ candidates.T).argsort(1, descending=True)
    for k, value in recall_at_k(queries, candidates, targets, (1, 5, 10, 40)).items():
        expected = (order[:, :k] == targets[:, None]).any(1).double().mean()
        assert value == float(expected)


def test_recall_of_any_against_a_full_sort():
    queries, candidates = unit(40, 8), unit(1500, 8, seed=1)
    owners = torch.arange(1500) ** 2 % 40  # of which 12 are squares, and the rest own nothing
    order = (queries @ candidates.T).argsort(1, descending=True)
    own = owners[order] == torch.arange(40)[:, None]
    for k, value in recall_of_any(queries, candidates, owners, (1, 5, 10, 1500)).items():
        assert value == float(own[:, :k].any(1).double().mean())
    same = (
        torch.ones(3, 4) / 2
    )  # of two right ones and a wrong one that ties, the wrong comes first
    assert recall_of_any(same[:1], same, torch.tensor([0, 1, 0]), (1, 2)) == {1: 0.0, 2: 1.0}
    nan = torch.full((1, 4), torch.nan)
    assert recall_of_any(nan, same, torch.tensor([0, 1, 1]), (1, 2, 3)) == {1: 0.0, 2: 0.0, 3: 1.0}


def test_chance_is_that_of_drawing_blindly():
    assert chance_of_any(torch.ones(1), 40, 5) == pytest.approx(5 / 40)
    assert chance_of_any(torch.ones(1), 3, 5) == 1
    right, n, k = torch.tensor([1, 3, 6]), 7, 2
    draws = [set(draw) for draw in itertools.combinations(range(n), k)]
    expected = [sum(min(draw) < count for draw in draws) / len(draws) for count in right.tolist()]
    assert chance_of_any(right, n, k) == pytest.approx(sum(expected) / 3)


def test_ties_count_against_the_target():
    same = torch.ones(3, 4) / 2
    assert target_ranks(same, same, torch.arange(3)).tolist() == [2, 2, 2]
    assert recall_at_k(same, same, torch.arange(3), (1, 3)) == {1: 0.0, 3: 1.0}


def test_nan_features_find_nothing():
    nan = torch.full((3, 4), torch.nan)
    assert recall_at_k(nan, unit(3, 4), torch.arange(3), (1, 2)) == {1: 0.0, 2: 0.0}


def test_prompts_are_averaged_on_the_sphere():
    table = {"a red": [1.0, 0.0], "red!": [0.0, 4.0], "a blue": [-1.0, 0.0], "blue!": [-2.0, 0.0]}

    def embed(prompts):
        return torch.tensor([table[p] for p in prompts])

    features = class_features(["red", "blue"], ["a {}", "{}!"], embed)
    torch.testing.assert_close(features, torch.tensor([[0.5**0.5, 0.5**0.5], [-1.0, 0.0]]))
    images = torch.tensor([[0.9, 0.1], [-1.0, 0.2], [-0.9, 0.1]])
    assert top1_accuracy(images, features, torch.tensor([0, 1, 0])) == 2 / 3


def test_the_nearest_of_several_captions_decides():
    captions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    classes = torch.tensor([0, 0, 1])
    images = torch.tensor([[1.0, 0.1], [0.1, 1.0], [0.6, 0.8], [0.8, 0.6]])
    found = top1_accuracy(images, captions, torch.tensor([0, 0, 1, 1]), classes)
    assert found == 1.0
    assert top1_accuracy(images, captions, torch.tensor([1, 1, 0, 0]), classes) == 0.0


def test_classes_that_tie_or_are_nan_are_wrong():
    same = torch.ones(4, 2) / 2**0.5
    labels, classes = torch.tensor([0, 1]), torch.tensor([0, 0, 1, 1])
    assert top1_accuracy(same[:2], same, labels, classes) == 0.0
    nan = torch.full((2, 2), torch.nan)
    assert top1_accuracy(nan, same, labels, classes) == 0.0
    same[2:] = torch.nan
    assert top1_accuracy(same[:2], same, labels, classes) == 0.0
