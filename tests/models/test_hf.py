from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPModel

from fastclip.errors import UserError
from fastclip.models import create_model
from fastclip.models.hf import from_hf, to_hf


def inputs(model, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    side = model.image_size
    image = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=generator)
    text = torch.randint(1, 598, (4, 16), generator=generator)
    for row, end in enumerate((15, 9, 4, 1)):
        text[row, end:] = 0
        text[row, end] = 599
    return image, text


def randomize(model) -> None:
    """Gains and biases that would show if they were lost or swapped."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_round_trip_through_saved_clip_model(tmp_path, quick_gelu):
    torch.manual_seed(0)
    model = create_model(
        "tiny-vit", vocab_size=600, context_length=16, quick_gelu=quick_gelu, embed_dim=96
    ).eval()
    randomize(model)
    log_scale = torch.tensor([3.21])
    to_hf(SimpleNamespace(model=model, log_logit_scale=float(log_scale))).save_pretrained(tmp_path)
    hf = CLIPModel.from_pretrained(tmp_path).eval()
    back, scale = from_hf(hf)

    image, text = inputs(model)
    with torch.no_grad():
        image_features, text_features = model(image, text)
        again = back.eval()(image, text)
        pixels = model.pixel_norm(image)
        out = hf(input_ids=text, pixel_values=pixels)
    torch.testing.assert_close(out.image_embeds, image_features, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.text_embeds, text_features, rtol=0, atol=1e-5)
    torch.testing.assert_close(again, (image_features, text_features), rtol=0, atol=1e-5)
    logits = log_scale.exp() * image_features @ text_features.T
    torch.testing.assert_close(out.logits_per_image, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scale, log_scale)
    assert scale.shape == (1,)
    assert hf.config.text_config.hidden_act == ("quick_gelu" if quick_gelu else "gelu")


def test_activations_differ_enough_for_the_round_trip_to_tell():
    features = []
    for quick_gelu in (False, True):
        torch.manual_seed(0)
        model = create_model(
            "tiny-vit", vocab_size=600, context_length=16, quick_gelu=quick_gelu
        ).eval()
        randomize(model)
        features.append(model.encode_image(inputs(model)[0]))
    assert (features[0] - features[1]).abs().max() > 1e-4


def test_old_configurations_that_pool_at_the_highest_id():
    torch.manual_seed(0)
    model = create_model("tiny-vit", vocab_size=600, context_length=16).eval()
    hf = to_hf(SimpleNamespace(model=model, log_logit_scale=0.0))
    hf.config.text_config.eos_token_id = 2
    back, _ = from_hf(hf)
    image, text = inputs(model)
    torch.testing.assert_close(back(image, text), model(image, text))


def test_other_towers_are_refused():
    model = create_model("tiny-resnet", vocab_size=600)
    with pytest.raises(UserError, match="TimmTower"):
        to_hf(SimpleNamespace(model=model, log_logit_scale=0.0))
