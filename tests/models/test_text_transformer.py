import pytest
import torch

from fastclip.models import create_model

EOT = 599


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return create_model("tiny-vit", vocab_size=600, context_length=12).text.eval()


def ids(*words: int) -> list[int]:
    return [598, *words, EOT] + [0] * (10 - len(words))


def test_feature_is_read_at_the_end_of_text_token(tower):
    text = torch.tensor([ids(5, 6), ids(7, 8, 9, 10)])
    states = tower.transformer(text).last_hidden_state
    expected = tower.projection(torch.stack([states[0, 3], states[1, 5]]))
    torch.testing.assert_close(tower(text), expected)


def test_what_follows_the_end_has_no_influence(tower):
    text = torch.tensor([ids(5, 6), ids(7, 8, 9, 10)])
    other = text.clone()
    other[0, 4:] = torch.randint(1, 598, (8,))
    other[1, 6:] = EOT
    torch.testing.assert_close(tower(other), tower(text))


def test_attention_is_causal(tower):
    text = torch.tensor([ids(5, 6, 7, 8)])
    other = torch.tensor([ids(5, 6, 7, 9)])
    states, others = (tower.transformer(t).last_hidden_state for t in (text, other))
    torch.testing.assert_close(states[:, :4], others[:, :4])
    assert (states[:, 4:6] - others[:, 4:6]).abs().min() > 0


def test_idle_columns_are_not_computed(tower):
    lengths = []
    tower.transformer.final_layer_norm.register_forward_hook(
        lambda module, args, output: lengths.append(output.shape[1])
    )
    tower(torch.tensor([ids(5, 6), ids(7, 8, 9, 10)]))
    assert lengths == [6]


def test_initial_spread_is_clips():
    torch.manual_seed(0)
    transformer = create_model("tiny-vit", vocab_size=5000).text.transformer
    width, layers = transformer.config.hidden_size, transformer.config.num_hidden_layers
    block = transformer.encoder.layers[0]
    residual = width**-0.5 * (2 * layers) ** -0.5
    for weight, std in (
        (block.self_attn.q_proj.weight, width**-0.5),
        (block.self_attn.out_proj.weight, residual),
        (block.mlp.fc1.weight, (2 * width) ** -0.5),
        (block.mlp.fc2.weight, residual),
        (transformer.embeddings.token_embedding.weight, 0.02),
        (transformer.embeddings.position_embedding.weight, 0.01),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.05)
