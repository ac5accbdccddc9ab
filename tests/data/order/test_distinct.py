import torch

from fastclip.data.order import separate_groups


def test_no_batch_holds_a_group_twice():
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(0, 60, (400,), generator=generator)
    order = torch.randperm(400, generator=generator)
    separated = separate_groups(order, groups, 32)
    assert len(separated) % 32 == 0
    assert len(separated) >= 320
    assert len(set(separated.tolist())) == len(separated)
    for rows in separated.split(32):
        assert len(set(groups[rows].tolist())) == 32


def test_rows_of_several_groups_share_none_of_them():
    generator = torch.Generator().manual_seed(0)
    captions = torch.randint(0, 80, (400,), generator=generator)
    pictures = torch.randint(100, 200, (400,), generator=generator)
    order = torch.randperm(400, generator=generator)
    separated = separate_groups(order, torch.stack([captions, pictures], 1), 32)
    assert len(separated) >= 320
    for rows in separated.split(32):
        assert len(set(captions[rows].tolist())) == len(set(pictures[rows].tolist())) == 32


def test_nothing_moves_where_nothing_repeats():
    order = torch.randperm(100)
    assert separate_groups(order, torch.arange(100), 10).equal(order)


def test_no_group_is_shared_with_no_row():
    order = torch.arange(4)
    assert separate_groups(order, torch.tensor([[0, -1], [1, -1], [2, -1], [3, -1]]), 4).equal(
        order
    )


def test_what_cannot_be_told_apart_is_left_out():
    assert separate_groups(torch.arange(6), torch.tensor([0, 0, 0, 0, 1, 1]), 2).tolist() == [
        0,
        4,
        1,
        5,
    ]
