"""Masked words: what a place sees, and how true words rank."""

import torch
from small import SIDE, build, tokenizer
from torch import Tensor

from fastclip.data.text.tag_words import Found
from fastclip.models.masked_captioner import MaskedCaptioner

TEXTS = ["red green ring", "a star zq two", "blue", "one heart"]
# Of the second text a word of two pieces.
MASKED = [Found(4, 9, 0), Found(7, 9, 0), Found(0, 4, 0), Found(4, 9, 0)]


def model(dropout: bool = False) -> MaskedCaptioner:
    return build("masked_lm", dropout=dropout).model.eval()


def pictures(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def rank_alone(net: MaskedCaptioner, image: Tensor, text: str, word: Found) -> int:
    """The same for one text, a place at a time."""
    [ids] = tokenizer()([text]).tolist()
    size = ids.index(tokenizer().eot_id) + 1
    before = len(tokenizer().pieces(text[: word.start]))
    own = tokenizer().pieces(text[word.start : word.end])
    tokens = torch.tensor([ids[:size]])
    places = range(1 + before, 1 + before + len(own))
    assert ids[places[0] : places[-1] + 1] == own
    tokens[0, list(places)] = net.mask_id
    logits = net.head(net(image[None], tokens, torch.tensor([size])))[0, :, : net.mask_id]
    ranks = [int((logits[p] >= logits[p, i]).sum()) - 1 for p, i in zip(places, own, strict=True)]
    return max(ranks)


def test_a_word_ranks_as_its_worst_piece_whatever_stands_beside_it():
    net, image = model(), pictures(4)
    assert len(tokenizer().pieces("zq")) == 2
    with torch.no_grad():
        found = net.foresee_masked(net.encode_grid(image), TEXTS, MASKED)
        alone = [rank_alone(net, *row) for row in zip(image, TEXTS, MASKED, strict=True)]
        assert found.tolist() == alone
        net.decoder.head.bias[tokenizer().pieces("green")] = 1e3
        found = net.foresee_masked(net.encode_grid(image), TEXTS, MASKED)
    assert found[0] == 0 and found[2] > 0
    assert net.num_candidates == tokenizer().vocab_size


def test_the_true_word_is_not_seen():
    net, image = model(), pictures(2)
    grid = net.encode_grid(image)
    seen = []
    net.decoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    net.foresee_masked(grid, ["red green ring", "blue"], [Found(4, 9, 0), Found(0, 4, 0)])
    net.foresee_masked(grid, ["red heart ring", "star"], [Found(4, 9, 0), Found(0, 4, 0)])
    assert torch.equal(*seen)


def test_what_is_not_kept_or_not_finite_is_never_foreseen():
    net, image = model(), pictures(2)
    long = "red ring two green blue star heart one"
    grid, last = net.encode_grid(image), Found(len(long) - 3, len(long), 0)
    assert last not in net.maskable(long)
    found = net.foresee_masked(grid, [long, "red"], [last, Found(0, 0, 0)])
    assert found.tolist() == [net.num_candidates] * 2
    for words in (net.maskable(long), net.maskable("red, blue-ring")):
        assert [w.number for w in words] == [0] * len(words)
    assert [(w.start, w.end) for w in net.maskable("red, blue-ring")] == [(0, 3), (5, 9), (10, 14)]
    assert len(net.maskable(long)) == tokenizer().context_length - 1
    with torch.no_grad():
        net.decoder.head.bias.fill_(float("nan"))
    found = net.foresee_masked(grid, ["red", "blue ring"], [Found(0, 3, 0), Found(5, 9, 0)])
    assert (found > 0).all()


def test_padding_is_not_seen():
    net, image = model(), pictures(1)
    text = tokenizer()(["red ring"])
    lengths = torch.tensor([4])
    other = text.clone()
    other[:, 4:] = 7
    states = net(image, text, lengths)[:, :4]
    torch.testing.assert_close(net(image, other, lengths)[:, :4], states)
    torch.testing.assert_close(net(image, text[:, :4], lengths), states)
    other[:, 2] = 7  # a later token is seen
    assert (net(image, other, lengths)[:, 1] - states[:, 1]).abs().max() > 1e-4
