"""CoCa: what its class token and its states may see; features alike with and without captions."""

import pytest
import torch
from torch import nn

from fastclip.errors import UserError
from fastclip.models import create_coca
from fastclip.models.locking import lock_text

VOCAB, LENGTH, SOT, EOT = 40, 8, 38, 39
TEXTS = [[SOT, 5, 6, EOT], [SOT, 7, 8, 9, 10, EOT, 3], [SOT, 1, 2, 3, 4, 5, 6, EOT]]


def coca(name: str = "tiny-convnet", **options):
    torch.manual_seed(0)
    return create_coca(
        name, vocab_size=VOCAB, context_length=LENGTH, eot_id=EOT, image_size=32, **options
    )


def pictures(rows: int = 3):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=generator)


def tokens(pad: int = 0):
    return torch.tensor([text + [pad] * (LENGTH - len(text)) for text in TEXTS])


def test_the_class_token_sees_the_text_to_its_first_end_and_nothing_else():
    text = coca().text.double()
    for row, feature in zip(tokens(), text(tokens()), strict=True):
        real = row[: row.tolist().index(EOT) + 1]
        words = text.words.weight[real] + text.positions.weight[: len(real)]
        states = torch.cat([words, text.class_token.weight])[None]
        expected = text.projection(text.norm(text.layers(states)[:, -1]))
        torch.testing.assert_close(feature, expected[0])
    torch.testing.assert_close(text(tokens(pad=EOT)), text(tokens()))
    torch.testing.assert_close(text(tokens(pad=4)), text(tokens()))


def test_no_token_sees_the_class_token_or_a_later_token():
    text = coca().text.double()
    _, states = text.features_and_states(tokens())
    torch.testing.assert_close(states, text.states(tokens()))
    torch.testing.assert_close(states[:, :3], text.states(tokens()[:, :3]))


@pytest.mark.parametrize("name", ["tiny-convnet", "tiny-vit", "tiny-resnet"])
def test_features_alone_are_those_of_the_whole_pass_with_dropout_too(name):
    model = coca(name)
    model.visual.projection = nn.Sequential(nn.Dropout(0.3), model.visual.projection)
    model.text.projection = nn.Sequential(nn.Dropout(0.3), model.text.projection)
    torch.manual_seed(1)
    image, text = model.features(pictures(), tokens())
    torch.manual_seed(1)
    image_again, text_again, hidden = model(pictures(), tokens())
    assert torch.equal(image, image_again) and torch.equal(text, text_again)
    assert hidden.shape == (3, LENGTH, model.head.weight.shape[1])
    torch.testing.assert_close(image.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(3))


def test_hidden_states_see_the_picture_and_text_features_do_not():
    model = coca().eval()
    _, text, hidden = model(pictures(), tokens())
    _, other_text, other_hidden = model(pictures().flip(0), tokens())
    assert torch.equal(text, other_text)
    assert ((hidden - other_hidden)[0].abs().amax(-1) > 1e-4).all()


def test_next_token_logits_are_the_last_states():
    model = coca().eval()
    grid = model.encode_grid(pictures())
    for length in (1, 4):
        *_, hidden = model(pictures(), tokens()[:, :length])
        logits = model.next_token_logits(grid, tokens()[:, :length])
        torch.testing.assert_close(logits, model.head(hidden)[:, -1])


@pytest.mark.parametrize("name", ["tiny-convnet", "tiny-vit", "tiny-resnet"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_parameter_gets_a_gradient(name, checkpointed):
    model = coca(name)
    model.set_grad_checkpointing(checkpointed)
    image, text, hidden = model(pictures(), tokens())
    ((image @ text.T).softmax(-1).diag().sum() + model.head(hidden).logsumexp(-1).sum()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_shapes_come_from_the_text_transformer_or_the_decoder_of_a_preset():
    with torch.device("meta"):
        big, small = coca("ViT-B-32"), coca("tiny-convnet", decoder_layers=3)
    for stack in (big.text.layers, big.multimodal.layers):
        assert len(stack.layers) == 12
        assert stack.layers[0].self_attention.heads == 8
    assert big.head.weight.shape == (VOCAB, 512)
    assert small.head.weight.shape == (VOCAB, 128)
    assert len(small.multimodal.layers.layers) == len(small.text.layers.layers) == 3


def test_its_text_is_locked_in_groups():
    text = coca(decoder_layers=2).text
    grouped = [p for group in text.layer_groups() for part in group for p in part.parameters()]
    assert sorted(map(id, grouped)) == sorted(map(id, text.parameters()))
    lock_text(text, unlocked_layers=2, freeze_layer_norm=True)
    learning = {name for name, p in text.named_parameters() if p.requires_grad}
    last = {name for name, _ in text.named_parameters() if name.startswith("layers.layers.1.")}
    assert learning == last | {"norm.weight", "norm.bias", "projection.weight"}


def test_a_bag_of_words_is_refused():
    with pytest.raises(UserError, match="--tokenizer"):
        create_coca("tiny-convnet", vocab_size=VOCAB, context_length=LENGTH, eot_id=None)
