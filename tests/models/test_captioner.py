"""Captioners: what a state may see, how they start, what each factory keyword does."""

import pytest
import torch

from fastclip.data.text.bpe import train_bpe
from fastclip.errors import UserError
from fastclip.models import create_captioner
from fastclip.models.caption_decoder import CaptionDecoder

VOCAB, GRID, WIDTH, LENGTH = 40, 10, 16, 8


def decoder(**options):
    torch.manual_seed(0)
    return CaptionDecoder(VOCAB, GRID, WIDTH, 2, 4, LENGTH, **options)


def grid_and_tokens(rows: int = 3, length: int = LENGTH):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, VOCAB, (rows, length), generator=generator)
    return torch.randn(rows, 6, GRID, generator=generator), tokens


def captioner(name: str = "tiny-convnet", **options):
    torch.manual_seed(0)
    return create_captioner(
        name, vocab_size=VOCAB, context_length=LENGTH, eot_id=39, image_size=32, **options
    )


def pictures(rows: int = 3):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_state_sees_the_grid_and_the_tokens_up_to_its_own(pre_norm):
    net = decoder(pre_norm=pre_norm).eval().double()
    grid, tokens = grid_and_tokens()
    grid = grid.double().requires_grad_()
    states = net(grid, tokens)
    other = tokens.clone()
    other[:, 5:] = (other[:, 5:] + 7) % VOCAB
    changed = (net(grid, other) - states).abs().amax((0, 2))
    assert (changed[:5] < 1e-12).all() and (changed[5:] > 1e-6).all()
    for place in (0, LENGTH - 1):
        (gradient,) = torch.autograd.grad(states[:, place].square().sum(), grid, retain_graph=True)
        assert (gradient.abs().amax((0, 2)) > 0).all()
    torch.testing.assert_close(net(grid, tokens[:, :4]), states[:, :4])


def test_weights_start_as_virtex_has_them():
    net = decoder(pad_id=0)
    words = net.embedding.words.weight
    assert not words[0].any()
    for weight in (words[1:], net.grid_projection.weight, net.layers.layers[0].fc1.weight):
        # three standard errors of a sample's standard deviation
        assert weight.std().item() == pytest.approx(0.02, rel=3 / (2 * weight.numel()) ** 0.5)
    attention = net.layers.layers[1].cross_attention
    assert not attention.q_proj.bias.any() and not attention.out_proj.bias.any()


def test_words_and_positions_are_summed_and_normalized():
    net = decoder().eval()
    _, tokens = grid_and_tokens()
    x = net.embedding.words.weight[tokens] + net.embedding.positions.weight
    x = (x - x.mean(-1, keepdim=True)) / x.var(-1, keepdim=True, unbiased=False).sqrt()
    torch.testing.assert_close(net.embedding(tokens), x, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=f"a text has 9 tokens, the decoder takes {LENGTH}"):
        net.embedding(torch.zeros(1, 9, dtype=torch.int64))


def test_backward_layers_start_as_a_copy_and_learn_apart():
    net = decoder(bidirectional=True, dropout=0.0)
    grid, tokens = grid_and_tokens()
    assert torch.equal(net(grid, tokens), net(grid, tokens, backward=True))
    net(grid, tokens, backward=True).square().sum().backward()
    assert all(p.grad is None for p in net.layers.parameters())
    assert all(p.grad is not None for p in net.backward_layers.parameters())
    with pytest.raises(ValueError, match="bidirectional"):
        decoder()(grid, tokens, backward=True)


def test_next_token_logits_are_the_last_states():
    net, image = captioner().eval(), pictures()
    _, tokens = grid_and_tokens()
    grid = net.encode_grid(image)
    logits = net.next_token_logits(grid, tokens)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, net.head(net(image, tokens))[:, -1])
    assert torch.equal(net.encode_image(image, normalize=False), grid.mean(1))
    assert net.bfloat16().next_token_logits(grid.bfloat16(), tokens).dtype == torch.float32


@pytest.mark.parametrize("name", ["tiny-convnet", "tiny-vit", "tiny-resnet"])
def test_no_parameter_is_idle(name):
    net = captioner(name, bidirectional=True, pre_norm=True)
    _, tokens = grid_and_tokens()
    grid = net.encode_grid(pictures())
    hidden = net.hidden(grid, tokens), net.hidden(grid, tokens.flip(1), backward=True)
    sum(net.head(x).logsumexp(-1).sum() for x in hidden).backward()
    assert not [n for n, p in net.named_parameters() if p.requires_grad == (p.grad is None)]


def test_checkpointing_changes_no_gradient():
    gradients = []
    for enable in (False, True):
        net = captioner(bidirectional=True)
        net.set_grad_checkpointing(enable)
        _, tokens = grid_and_tokens()
        torch.manual_seed(3)
        net.head(net(pictures(), tokens)).logsumexp(-1).sum().backward()
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    for plain, light in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, light)


def test_shapes_come_from_the_preset_and_from_keywords():
    with torch.device("meta"):
        big = create_captioner("RN50", vocab_size=10_000, context_length=30, eot_id=2, dropout=0.2)
        net = captioner(decoder_width=24, decoder_layers=3, decoder_heads=2)
    layer = big.decoder.layers.layers[0]
    assert (layer.fc1.in_features, layer.self_attention.heads) == (1024, 16)
    assert (len(big.decoder.layers.layers), layer.dropout.p) == (1, 0.2)
    assert big.decoder.grid_projection.in_features == 2048
    assert len(net.decoder.layers.layers) == 3
    assert net.decoder.layers.layers[0].self_attention.heads == 2
    assert net.head.weight.shape == (VOCAB, 24)


def test_a_tokenizer_fits_as_it_is():
    bpe = train_bpe(["a red circle", "two blue stars"], 600, 12)
    net = create_captioner(
        "tiny-convnet",
        vocab_size=bpe.vocab_size,
        context_length=bpe.context_length,
        pad_id=bpe.pad_id,
        eot_id=bpe.eot_id,
    )
    # id 0 pads, but is a byte as well
    assert net.decoder.embedding.words.padding_idx is None
    assert net(pictures(2), bpe(["a red circle", "two"])).shape == (2, 12, 128)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eot_id": None}, ["--tokenizer", "bpe"]),
        ({"decoder_heads": 3}, ["decoder_width is 128", "decoder_heads, 3"]),
        ({"decoder_layers": 0}, ["decoder_layers is 0"]),
        ({"dropout": 1.0}, ["dropout is 1.0"]),
        ({"widht": 3}, ["'widht'"]),
    ],
)
def test_bad_input_is_told_in_one_sentence(options, words):
    tokens = {"vocab_size": VOCAB, "context_length": LENGTH, "eot_id": 39}
    with pytest.raises(UserError) as error:
        create_captioner("tiny-convnet", **tokens | options)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
