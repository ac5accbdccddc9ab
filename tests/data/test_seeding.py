"""Derived seeds."""

import itertools

import torch

from fastclip.data.seeding import derived_seed, torch_generator


def test_every_place_has_a_seed_of_its_own_that_stays():
    paths = [p for n in range(1, 5) for p in itertools.product(range(5), repeat=n)]
    seeds = [derived_seed(*path) for path in paths]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [derived_seed(*path) for path in paths]
    assert derived_seed(1, 2, 3) == 6530208866956668065
    draws = [torch.rand(1, generator=torch_generator(*path)).item() for path in paths[:200]]
    assert len(set(draws)) > 190
