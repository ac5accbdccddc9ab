"""From a preset to its towers."""

from fastclip.errors import UserError
from fastclip.models.presets import ConvNet, Preset, TextBag, TimmBackbone
from fastclip.models.tower import ImageTower, Tower


def build_image_tower(preset: Preset, grid_only: bool = False) -> ImageTower:
    """The image tower of a preset; ``grid_only`` leaves its pooling and projection out."""
    image = preset.image
    embed_dim = None if grid_only else preset.embed_dim
    if isinstance(image, TimmBackbone):
        from fastclip.models.timm_tower import TimmTower

        return TimmTower(image.name, embed_dim, preset.image_size, image.kwargs)
    if isinstance(image, ConvNet):
        from fastclip.models.convnet import ConvNetTower

        return ConvNetTower(image.widths, embed_dim, image.pool)

    from transformers import CLIPVisionConfig

    from fastclip.models.vit import ClipVisionTower

    config = CLIPVisionConfig(
        hidden_size=image.width,
        intermediate_size=4 * image.width,
        projection_dim=preset.embed_dim,
        num_hidden_layers=image.layers,
        num_attention_heads=image.heads,
        image_size=preset.image_size,
        patch_size=image.patch_size,
        hidden_act=activation(preset),
    )
    return ClipVisionTower(config, embed_dim)


def build_text_tower(preset: Preset) -> Tower:
    """The text tower of a preset."""
    text = preset.text
    if isinstance(text, TextBag):
        from fastclip.models.text_bag import TextBagTower

        return TextBagTower(
            preset.vocab_size, text.width, text.hidden, preset.embed_dim, preset.pad_id
        )

    if preset.eot_id == 2:
        raise UserError(
            "model: eot_id is 2, which transformers' CLIP reads as 'pool at the highest id'; "
            "give the end-of-text token another id."
        )

    from transformers import CLIPTextConfig

    from fastclip.models.text_transformer import ClipTextTower

    config = CLIPTextConfig(
        vocab_size=preset.vocab_size,
        hidden_size=text.width,
        intermediate_size=4 * text.width,
        projection_dim=preset.embed_dim,
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        max_position_embeddings=preset.context_length,
        hidden_act=activation(preset),
        pad_token_id=preset.pad_id,
        bos_token_id=None,
        eos_token_id=preset.vocab_size - 1 if preset.eot_id is None else preset.eot_id,
    )
    return ClipTextTower(config, preset.embed_dim)


def activation(preset: Preset) -> str:
    """transformers' name of the transformers' activation."""
    return "quick_gelu" if preset.quick_gelu else "gelu"
