"""To and from ``transformers.CLIPModel``, for a CLIP-shaped ViT with CLIP's text transformer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from fastclip.errors import UserError
from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.presets import CLIP_MEAN, CLIP_STD
from fastclip.models.text_transformer import ClipTextTower
from fastclip.models.vit import ClipVisionTower


@torch.no_grad()
def to_hf(trained: Any) -> CLIPModel:
    """A copy of a trained run as a ``CLIPModel``, with its logit scale.

    ``trained`` is what ``fastclip.runs.load_run`` returns: ``model`` and ``log_logit_scale`` are
    taken of it. Raises ``UserError`` for towers that ``CLIPModel`` cannot hold and for a SigLIP
    run, whose bias it has no place for.
    """
    if not hasattr(trained, "log_logit_scale"):
        raise UserError(
            f"export: expected a run as load_run returns it, with its logit scale, not "
            f"{type(trained).__name__}"
        )
    if hasattr(trained, "logit_bias"):
        raise UserError("export: transformers.CLIPModel has no place for SigLIP's logit bias")
    model: DualEncoder = trained.model
    visual, text = model.visual, model.text
    if not (isinstance(visual, ClipVisionTower) and isinstance(text, ClipTextTower)):
        raise UserError(
            f"export: transformers.CLIPModel holds a ViT and a text transformer in CLIP's shape, "
            f"not {type(visual).__name__} and {type(text).__name__}."
        )
    hf = CLIPModel(
        CLIPConfig(
            vision_config=visual.transformer.config.to_dict(),
            text_config=text.transformer.config.to_dict(),
            projection_dim=model.embed_dim,
        )
    )
    for target, source in paired_modules(hf, visual, text):
        target.load_state_dict(source.state_dict())
    hf.logit_scale.fill_(trained.log_logit_scale)
    return hf.train(model.training)


@torch.no_grad()
def from_hf(
    hf: CLIPModel, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> tuple[DualEncoder, Tensor]:
    """A copy of a ``CLIPModel`` as (model, logit scale); the scale is the logarithm, fp32, [1].

    ``mean`` and ``std`` are those of its image processor, which ``CLIPModel`` does not carry.
    """
    config: Any = hf.config
    visual = ClipVisionTower(config.vision_config, config.projection_dim)
    text = ClipTextTower(config.text_config, config.projection_dim)
    for source, target in paired_modules(hf, visual, text):
        target.load_state_dict(source.state_dict())
    model = DualEncoder(
        visual,
        text,
        embed_dim=config.projection_dim,
        image_size=config.vision_config.image_size,
        context_length=config.text_config.max_position_embeddings,
        mean=mean,
        std=std,
    )
    return model.train(hf.training), hf.logit_scale.detach().float().reshape(1).clone()


def paired_modules(hf: CLIPModel, visual: ClipVisionTower, text: ClipTextTower):
    """(module of ``hf``, our module with the same parameters)."""
    yield hf.vision_model, visual.transformer
    yield hf.visual_projection, visual.projection
    yield hf.text_model, text.transformer
    yield hf.text_projection, text.projection
