import torch

from fastclip.models.text_bag import TextBagTower


def tower(pad_id: int = 0) -> TextBagTower:
    torch.manual_seed(0)
    return TextBagTower(vocab_size=50, width=16, hidden=24, embed_dim=8, pad_id=pad_id)


def test_order_and_padding_do_not_count():
    bag = tower()
    short = bag(torch.tensor([[3, 4, 9]]))
    torch.testing.assert_close(bag(torch.tensor([[9, 0, 3, 4, 0, 0]])), short)
    assert (bag(torch.tensor([[3, 4, 9, 9]])) - short).norm() > 1e-3


def test_padding_id_is_the_one_given():
    bag = tower(pad_id=7)
    torch.testing.assert_close(bag(torch.tensor([[3, 4, 7, 7]])), bag(torch.tensor([[3, 4]])))
    assert (bag(torch.tensor([[3, 4, 0, 0]])) - bag(torch.tensor([[3, 4]]))).norm() > 1e-3


def test_text_of_padding_alone_is_finite():
    bag = tower()
    features = bag(torch.zeros(2, 5, dtype=torch.int64))
    features.sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in bag.parameters())
