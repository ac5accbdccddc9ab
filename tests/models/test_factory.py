import open_clip
import pytest
import torch

from fastclip.errors import UserError
from fastclip.models import create_model, list_models

OPEN_CLIP_NAMES = ["ViT-B-32", "ViT-B-16", "ViT-L-14", "RN50", "RN101", "RN50x4"]
TINY = ["tiny-convnet", "tiny-resnet", "tiny-vit"]


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", OPEN_CLIP_NAMES)
def test_big_presets_have_the_parameters_of_open_clips(name):
    with torch.device("meta"):
        ours = create_model(name)
        config = open_clip.get_model_config(name)
        theirs = open_clip.CLIP(**config)
    assert count(ours) == count(theirs) - 1  # theirs holds the logit scale
    assert ours.embed_dim == config["embed_dim"]
    assert ours.image_size == config["vision_cfg"]["image_size"]
    assert ours.context_length == config["text_cfg"]["context_length"]


def test_every_listed_name_constructs_without_scalar_parameters():
    assert set(OPEN_CLIP_NAMES + TINY) <= set(list_models())
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
        assert all(p.ndim > 0 for p in model.parameters()), name


@pytest.mark.parametrize("name", [*TINY, "timm:resnet10t"])
def test_forward_gives_unit_features_and_every_parameter_a_gradient(name):
    torch.manual_seed(0)
    model = create_model(name, vocab_size=600, context_length=16, image_size=32, embed_dim=48)
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    text = torch.randint(1, 599, (4, 16))
    text[:, 9] = 599
    image_features, text_features = model(image, text)
    assert image_features.shape == text_features.shape == (4, 48)
    for features in (image_features, text_features):
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(4))
    (image_features @ text_features.T).softmax(-1).diag().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing


def test_tokenizer_sizes_reach_the_text_tower():
    config = create_model(
        "tiny-vit", vocab_size=700, context_length=24, pad_id=5, eot_id=650
    ).text.transformer.config
    found = config.vocab_size, config.max_position_embeddings, config.pad_token_id
    assert found == (700, 24, 5)
    assert config.eos_token_id == 650
    assert create_model("tiny-vit", vocab_size=700).text.transformer.config.eos_token_id == 699


def test_quickgelu_names_change_the_activation_alone():
    with torch.device("meta"):
        plain, quick = create_model("ViT-B-32"), create_model("ViT-B-32-quickgelu")
    assert plain.visual.transformer.config.hidden_act == "gelu"
    assert quick.visual.transformer.config.hidden_act == "quick_gelu"
    assert quick.text.transformer.config.hidden_act == "quick_gelu"
    assert count(plain) == count(quick)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("ViT-B-33", {}, ["'ViT-B-33'", "ViT-B-32", "tiny-vit", "timm:"]),
        ("timm:resnet1x", {}, ["'resnet1x'", "resnet1"]),
        ("tiny-vit", {"widht": 3}, ["'widht'", "embed_dim"]),
        ("tiny-vit", {"image_size": 33}, ["image_size is 33", "patch size"]),
        ("tiny-vit", {"embed_dim": 0}, ["embed_dim is 0"]),
        ("tiny-vit", {"vocab_size": 600, "eot_id": 600}, ["eot_id is 600", "0 to 599"]),
        ("tiny-vit", {"eot_id": 2}, ["eot_id is 2"]),
    ],
)
def test_bad_input_is_told_in_one_sentence(name, overrides, words):
    with pytest.raises(UserError) as error:
        create_model(name, **overrides)
    message = str(error.value)
    assert all(word in message for word in words)
    assert "\n" not in message
