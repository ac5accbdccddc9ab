import copy

import pytest
import torch

from fastclip.models import create_model


@pytest.fixture
def tiny_vit():
    torch.manual_seed(0)
    return create_model("tiny-vit", vocab_size=600, context_length=12)


def batch(rows: int, size: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (rows, 3, size, size), dtype=torch.uint8, generator=generator)
    text = torch.randint(1, 599, (rows, 12), generator=generator)
    text[:, 8] = 599
    return image, text


def test_uint8_pictures_are_standardized_inside(tiny_vit):
    image, text = batch(3, tiny_vit.image_size)
    floats = (image / 255 - tiny_vit.mean) / tiny_vit.std
    torch.testing.assert_close(tiny_vit(image, text), tiny_vit(floats, text))


def test_encoders_agree_with_forward(tiny_vit):
    image, text = batch(3, tiny_vit.image_size)
    features = tiny_vit(image, text)
    for found, encode, value in zip(
        features, (tiny_vit.encode_image, tiny_vit.encode_text), (image, text), strict=True
    ):
        torch.testing.assert_close(encode(value), found, rtol=0, atol=0)
        raw = encode(value, normalize=False)
        torch.testing.assert_close(raw / raw.norm(dim=-1, keepdim=True), found)


def test_feature_dtype_is_the_towers_and_pixel_statistics_stay_fp32(tiny_vit):
    image, text = batch(3, tiny_vit.image_size)
    expected = tiny_vit(image, text)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = tiny_vit(image, text)
    mean = tiny_vit.mean.clone()
    cast = tiny_vit.bfloat16()(image, text)
    assert tiny_vit.mean.dtype == torch.float32
    torch.testing.assert_close(tiny_vit.mean, mean, rtol=0, atol=0)
    for features in (autocast, cast):
        for found, reference in zip(features, expected, strict=True):
            assert found.dtype == torch.bfloat16
            assert (found.float() - reference).norm() < 0.02 * reference.norm()


def test_double_model_keeps_double_norms(tiny_vit):
    image_features, _ = tiny_vit.double()(*batch(2, tiny_vit.image_size))
    ones = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(image_features.norm(dim=-1), ones, rtol=0, atol=1e-14)


def test_micro_batches_give_the_gradients_of_the_whole_batch(tiny_vit):
    def gradients(model, rows_at_once):
        parts = [
            model(*pair)
            for pair in zip(*(x.split(rows_at_once) for x in batch(6, 32)), strict=True)
        ]
        image, text = (torch.cat(features) for features in zip(*parts, strict=True))
        torch.nn.functional.cross_entropy(10 * image @ text.T, torch.arange(6)).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    whole = gradients(copy.deepcopy(tiny_vit), 6)
    for rows_at_once in (1, 4):
        split = gradients(copy.deepcopy(tiny_vit), rows_at_once)
        assert (split - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet", "timm:resnet10t"])
def test_checkpointing_changes_neither_gradients_nor_statistics(name):
    torch.manual_seed(0)
    plain = create_model(name, vocab_size=600, context_length=12, image_size=32)
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing(True)
    for model in (plain, checkpointed):
        image, text = model(*batch(6, 32))
        torch.nn.functional.cross_entropy(10 * image @ text.T, torch.arange(6)).backward()
    for (key, expected), found in zip(
        plain.named_parameters(), checkpointed.parameters(), strict=True
    ):
        torch.testing.assert_close(found.grad, expected.grad, msg=key)
    for (key, expected), found in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(found, expected, msg=key)


def test_checkpointing_keeps_fewer_activations(tiny_vit):
    def saved_bytes():
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tiny_vit(*batch(4, tiny_vit.image_size))
        return total

    plain = saved_bytes()
    tiny_vit.set_grad_checkpointing(True)
    assert saved_bytes() < plain / 3
    tiny_vit.set_grad_checkpointing(False)
    assert saved_bytes() == plain
