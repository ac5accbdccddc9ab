import torch

from fastclip.data.order import spread


def test_no_batch_holds_a_group_twice():
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(0, 60, (400,), generator=generator)
    order = torch.randperm(400, generator=generator)
    spreaded = spread(order, groups, 32)
    assert len(spreaded) % 32 == 0
    assert len(spreaded) >= 320
    assert len(set(spreaded.tolist())) == len(spreaded)
    for rows in spreaded.split(32):
        assert len(set(groups[rows].tolist())) == 32


def test_nothing_moves_where_nothing_repeats():
    order = torch.randperm(100)
    assert spread(order, torch.arange(100), 10).equal(order)


def test_what_cannot_be_told_apart_is_left_out():
    assert spread(torch.arange(6), torch.tensor([0, 0, 0, 0, 1, 1]), 2).tolist() == [0, 4, 1, 5]
